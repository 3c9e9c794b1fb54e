ALTER {kind} {identity} OWNER TO {tune};
