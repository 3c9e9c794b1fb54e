-- The simulation's own schema and tables; a schema of this name that is not ours is refused.
SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL client_min_messages = warning;

DO $mark$
DECLARE
    schema_owner name;
    right_to_be text := CASE WHEN current_setting('server_version_num')::integer < 160000 THEN 'MEMBER' ELSE 'SET' END;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('genesis-pg setup', 0));
    IF to_regnamespace('genesis_simulation') IS NULL THEN
        IF EXISTS (SELECT FROM pg_publication WHERE puballtables) THEN
            RAISE EXCEPTION 'this database publishes all its tables, and whoever subscribes to it would stop at the first row of ours'
                USING ERRCODE = 'GE005', HINT = 'Nothing was touched. Simulate on another server.';
        END IF;
        SELECT pg_get_userbyid(nspowner) INTO schema_owner FROM pg_namespace WHERE nspname = 'genesis';
        IF pg_has_role(schema_owner, 'USAGE') AND pg_has_role(schema_owner, right_to_be) THEN
            -- so that whoever may drop schema genesis may drop this one too
            EXECUTE format('CREATE SCHEMA genesis_simulation AUTHORIZATION %I', schema_owner);
        ELSE
            CREATE SCHEMA genesis_simulation;
        END IF;
        COMMENT ON SCHEMA genesis_simulation IS 'genesis-pg: tables of simulate_load.sql; dropped by its uninstall';
    ELSIF obj_description(to_regnamespace('genesis_simulation'), 'pg_namespace') LIKE 'genesis-pg%' IS NOT TRUE THEN
        RAISE EXCEPTION 'schema genesis_simulation is there, and was not made by genesis-pg'
            USING ERRCODE = 'GE001', HINT = 'Nothing was touched. Rename that schema, or use another database.';
    END IF;
    SELECT pg_get_userbyid(nspowner) INTO schema_owner FROM pg_namespace WHERE nspname = 'genesis_simulation';
    IF schema_owner <> current_user AND pg_has_role(schema_owner, 'USAGE')
        AND pg_has_role(session_user, schema_owner, right_to_be) THEN
        -- a superuser's simulation must not leave objects that the owner cannot use
        EXECUTE format('SET LOCAL ROLE %I', schema_owner);
    END IF;
END
$mark$;

CREATE TABLE IF NOT EXISTS genesis_simulation.accounts (
    id integer PRIMARY KEY,
    balance bigint NOT NULL,
    changes integer NOT NULL
);
COMMENT ON TABLE genesis_simulation.accounts IS 'Rows that are read and updated, some of them far more often';

CREATE TABLE IF NOT EXISTS genesis_simulation.events (
    seed bigint NOT NULL,
    number integer NOT NULL,
    account_id integer NOT NULL,
    amount integer NOT NULL,
    PRIMARY KEY (seed, number)
);
COMMENT ON TABLE genesis_simulation.events IS 'Rows that are inserted and deleted';

CREATE TABLE IF NOT EXISTS genesis_simulation.schedule (
    seed bigint NOT NULL,
    number integer NOT NULL,
    due_seconds double precision NOT NULL,
    kind text NOT NULL,
    account_id integer NOT NULL,
    other_id integer NOT NULL,
    amount integer NOT NULL,
    PRIMARY KEY (seed, number)
);
COMMENT ON TABLE genesis_simulation.schedule IS 'Operations of each seed in the order in which they are due';
