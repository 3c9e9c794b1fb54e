GRANT CONNECT ON DATABASE {database} TO {observe};
-- For schema genesis at first, and for the tables of our own load where you allow it.
GRANT CREATE ON DATABASE {database} TO {tune};
