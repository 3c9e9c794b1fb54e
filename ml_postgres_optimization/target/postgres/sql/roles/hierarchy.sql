-- Whoever may tune may advise, and whoever may advise may observe.
GRANT {observe} TO {advise};
GRANT {advise} TO {tune};
