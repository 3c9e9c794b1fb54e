-- Who observes reads what was recorded; who advises writes it too.
GRANT USAGE ON SCHEMA genesis TO {observe};
GRANT SELECT ON ALL TABLES IN SCHEMA genesis TO {observe};
GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA genesis TO {advise};
ALTER DEFAULT PRIVILEGES FOR ROLE {tune} IN SCHEMA genesis GRANT SELECT ON TABLES TO {observe};
ALTER DEFAULT PRIVILEGES FOR ROLE {tune} IN SCHEMA genesis GRANT INSERT, UPDATE, DELETE ON TABLES TO {advise};
