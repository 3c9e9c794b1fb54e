-- Monitoring of operations in real time: genesis.watch_table('t') puts statement-level triggers on a table.
-- Triggers with a transition table are for one event each, so there is one for each.

CREATE OR REPLACE FUNCTION genesis.record_operation()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
AS $$
-- In the path of every statement on a watched table, so each microsecond counts (benchmarks/trigger_cost.py):
-- * No SET search_path, nor any other SET: it costs as much as the insert itself. Everything is qualified instead, so
--   that nothing of the caller's search_path can step in between.
-- * A plain table, since finding a partition costs a fifth of the rest. Types are cast inside of the query, to those of
--   the columns: one plan node less.
-- * A subtransaction (EXCEPTION), since nothing else keeps a full disk or a dropped table away from that statement. It
--   takes a transaction id of its own: more than 64 watched statements in one transaction overflow the cache of these.
BEGIN
    IF TG_OP OPERATOR(pg_catalog.=) 'TRUNCATE' THEN
        INSERT INTO genesis.operations_live
        SELECT
            pg_catalog.clock_timestamp(), pg_catalog.statement_timestamp(), TG_TABLE_SCHEMA::pg_catalog.text,
            TG_TABLE_NAME::pg_catalog.text, TG_OP, NULL::pg_catalog.int8, session_user::pg_catalog.text;
    ELSE
        INSERT INTO genesis.operations_live
        SELECT
            pg_catalog.clock_timestamp(), pg_catalog.statement_timestamp(), TG_TABLE_SCHEMA::pg_catalog.text,
            TG_TABLE_NAME::pg_catalog.text, TG_OP, pg_catalog.count(*), session_user::pg_catalog.text
        FROM changed_rows;
    END IF;
    RETURN NULL;
EXCEPTION
    WHEN OTHERS THEN
        -- once a session: a broken table must not fill the server's log
        IF pg_catalog.current_setting('genesis.failure_logged', true) OPERATOR(pg_catalog.=) 'yes' THEN
            RETURN NULL;
        END IF;
        PERFORM pg_catalog.set_config('genesis.failure_logged', 'yes', false);
        RAISE LOG 'genesis-pg could not record operations on %.%: %', TG_TABLE_SCHEMA, TG_TABLE_NAME, SQLERRM;
        RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION genesis.check_watchable(watched regclass)
RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    relation pg_class;
    kinds constant jsonb := '{"f": "foreign table", "v": "view", "m": "materialized view", "i": "index",
        "I": "index", "S": "sequence", "c": "composite type", "t": "TOAST table"}';
    schema_name text;
    foreign_descendant regclass;
BEGIN
    SELECT * INTO relation FROM pg_class WHERE oid = watched;
    schema_name := relation.relnamespace::regnamespace::text;
    WITH RECURSIVE descendant AS (
        SELECT inhrelid FROM pg_inherits WHERE inhparent = watched
        UNION
        SELECT link.inhrelid FROM pg_inherits AS link JOIN descendant ON link.inhparent = descendant.inhrelid
    )
    SELECT oid INTO foreign_descendant
    FROM pg_class JOIN descendant ON oid = inhrelid
    WHERE relkind = 'f'
    ORDER BY oid::regclass::text
    LIMIT 1;
    CASE
        WHEN relation.oid IS NULL THEN
            RAISE EXCEPTION 'there is no table %', coalesce(watched::text, 'NULL')
                USING ERRCODE = 'undefined_table', HINT = 'Name it with its schema: ''public.accounts''.';
        WHEN relation.relkind = 'f' THEN
            RAISE EXCEPTION '% is a foreign table, which cannot have transition tables', watched
                USING ERRCODE = 'wrong_object_type', HINT = 'Watch the table on the server where it is.';
        WHEN foreign_descendant IS NOT NULL THEN
            RAISE EXCEPTION '% has the foreign table % below it, which cannot have transition tables',
                watched, foreign_descendant
                USING ERRCODE = 'wrong_object_type', HINT = 'Watch those of its partitions or children that are local.';
        WHEN relation.relkind NOT IN ('r', 'p') THEN
            RAISE EXCEPTION '% is a %, not a table', watched, coalesce(kinds ->> relation.relkind::text, 'relation')
                USING ERRCODE = 'wrong_object_type', HINT = 'Watch the tables that are written to.';
        WHEN schema_name IN ('pg_catalog', 'pg_toast', 'information_schema') THEN
            RAISE EXCEPTION '% is a system catalogue, which cannot have triggers', watched
                USING ERRCODE = 'wrong_object_type', HINT = 'Watch tables of your own.';
        WHEN schema_name = 'genesis' THEN
            RAISE EXCEPTION '% is a table of genesis-pg itself', watched
                USING ERRCODE = 'wrong_object_type', HINT = 'Watch tables of your own.';
        WHEN relation.relpersistence = 't' THEN
            RAISE EXCEPTION '% is a temporary table, gone at the end of the session', watched
                USING ERRCODE = 'wrong_object_type', HINT = 'Watch tables that stay.';
        WHEN NOT pg_has_role(relation.relowner, 'USAGE') THEN
            RAISE EXCEPTION 'table % belongs to role %, and role % is no member of it',
                watched, relation.relowner::regrole, current_user
                USING ERRCODE = 'insufficient_privilege', HINT = format(
                    'Connect as %1$s, who needs USAGE on schema genesis, or GRANT %1$s TO %2$I.',
                    relation.relowner::regrole, current_user);
        ELSE
            RETURN;
    END CASE;
END
$$;

CREATE OR REPLACE FUNCTION genesis.watch_table(watched regclass)
RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms'
AS $$
DECLARE
    event text;
BEGIN
    PERFORM genesis.check_watchable(watched);
    -- not from the view, which the owner of a table need not be allowed to read
    IF (
        SELECT count(*) FROM pg_trigger
        WHERE tgrelid = watched AND tgfoid = 'genesis.record_operation()'::regprocedure
    ) = 4 THEN
        RAISE NOTICE 'table % is watched already', watched;
        RETURN;
    END IF;
    IF (SELECT relispartition FROM pg_class WHERE oid = watched) THEN
        RAISE NOTICE '% is a partition: only statements that name it are seen, not those that name its parent', watched
            USING HINT = 'Watch the partitioned table.';
    END IF;
    FOREACH event IN ARRAY ARRAY['insert', 'update', 'delete', 'truncate'] LOOP
        EXECUTE format('CREATE OR REPLACE TRIGGER %I AFTER %s ON %s %s FOR EACH STATEMENT '
            'EXECUTE FUNCTION genesis.record_operation()',
            'genesis_watch_' || event, event, watched,
            CASE event WHEN 'truncate' THEN '' WHEN 'delete' THEN 'REFERENCING OLD TABLE AS changed_rows'
                ELSE 'REFERENCING NEW TABLE AS changed_rows' END);
    END LOOP;
EXCEPTION
    WHEN lock_not_available THEN
        RAISE EXCEPTION 'table % is locked by another session', watched
            USING ERRCODE = 'lock_not_available', HINT = 'Try again when it is less busy; pg_locks shows who holds it.';
END
$$;
COMMENT ON FUNCTION genesis.watch_table(regclass)
    IS 'Record every INSERT, UPDATE, DELETE and TRUNCATE statement on a table in genesis.operations';

CREATE OR REPLACE FUNCTION genesis.unwatch_table(watched regclass)
RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms'
AS $$
DECLARE
    watch_trigger record;
BEGIN
    FOR watch_trigger IN
        SELECT tgname FROM pg_trigger
        WHERE tgrelid = watched AND tgfoid = 'genesis.record_operation()'::regprocedure AND tgparentid = 0
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', watch_trigger.tgname, watched);
    END LOOP;
    IF NOT found THEN
        RAISE NOTICE 'table % is not watched', coalesce(watched::text, 'NULL');
    END IF;
EXCEPTION
    WHEN lock_not_available THEN
        RAISE EXCEPTION 'table % is locked by another session', watched
            USING ERRCODE = 'lock_not_available', HINT = 'Try again when it is less busy; pg_locks shows who holds it.';
END
$$;
COMMENT ON FUNCTION genesis.unwatch_table(regclass) IS 'Take the triggers of genesis.watch_table() off again';
