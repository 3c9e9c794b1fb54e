-- The owner can rewrite the functions of the schema. So no superuser should call them, nor write to tables that they
-- watch, unless whoever logs in as that role may become one: docs/privileges.md.
-- Who observes or advises reads what was recorded. Only who tunes writes it: rollback puts in force what it says.
GRANT USAGE ON SCHEMA genesis TO {observe};
GRANT SELECT ON ALL TABLES IN SCHEMA genesis TO {observe};
ALTER DEFAULT PRIVILEGES FOR ROLE {tune} IN SCHEMA genesis GRANT SELECT ON TABLES TO {observe};
-- Earlier versions of this let who advises write there.
REVOKE INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA genesis FROM {advise};
-- And in tables to come.
ALTER DEFAULT PRIVILEGES FOR ROLE {tune} IN SCHEMA genesis REVOKE INSERT, UPDATE, DELETE ON TABLES FROM {advise};
