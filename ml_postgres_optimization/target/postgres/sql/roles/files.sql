-- To see what postgresql.auto.conf says, which is what would be put back.
GRANT SELECT ON pg_catalog.pg_file_settings TO {tune};
GRANT EXECUTE ON FUNCTION pg_catalog.pg_show_all_file_settings() TO {tune};
