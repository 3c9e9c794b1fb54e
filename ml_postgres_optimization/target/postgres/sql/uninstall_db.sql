-- Takes schema genesis, all that it recorded and its triggers on watched tables out of the database again:
--
--     psql -d shop -f uninstall_db.sql
--
-- All or nothing, in one transaction. A schema genesis that is not ours is refused and left alone.
\set ON_ERROR_STOP on
\set genesis_quiet :QUIET
\set QUIET on
BEGIN;
\ir schema/guard.sql
\ir schema/drop.sql
COMMIT;
\set QUIET :genesis_quiet
