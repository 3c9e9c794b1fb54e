-- Only what is listed here can ever be changed.
GRANT EXECUTE ON FUNCTION pg_catalog.pg_reload_conf() TO {tune};
GRANT ALTER SYSTEM ON PARAMETER {names} TO {tune};
