-- Refuses what is not ours before anything is touched, and lets one setup run at a time. First in the transaction of
-- every setup and uninstall, under psql and from Python. The mark of ours is the schema's comment.
-- SQLSTATE GE001: the schema is not ours; GE002: it is newer than this program; GE003: the server is too old; GE004: a table is in use;
-- GE005: tables of ours would be published.
SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL lock_timeout = '10s';

DO $guard$
DECLARE
    known_version constant integer := nullif(current_setting('genesis.known_version', true), '')::integer;
    found_version integer;
    schema_owner name;
    mark text;
    publications text;
BEGIN
    IF current_setting('server_version_num')::integer < 140000 THEN
        RAISE EXCEPTION 'this is PostgreSQL %, and the oldest that genesis-pg supports is 14',
            current_setting('server_version')
            USING ERRCODE = 'GE003', HINT = 'Upgrade the server (pg_upgrade keeps the data), or name another one.';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('genesis-pg setup', 0));
    SELECT string_agg(pubname, ', ' ORDER BY pubname) INTO publications FROM pg_publication WHERE puballtables;
    -- what stands was there before the publication: its subscribers were given it, or there are none
    IF known_version IS NOT NULL AND publications IS NOT NULL AND to_regclass('genesis.schema_version') IS NULL THEN
        RAISE EXCEPTION 'database % publishes all its tables (%), and whoever subscribes to it would stop at the first row of ours',
            current_database(), publications
            USING ERRCODE = 'GE005', HINT = 'Nothing was touched. Keep schema genesis in another database (--repository).';
    END IF;
    SELECT pg_get_userbyid(nspowner), obj_description(oid, 'pg_namespace')
    INTO schema_owner, mark
    FROM pg_namespace
    WHERE nspname = 'genesis';
    IF NOT found THEN
        RETURN;
    END IF;
    IF mark IS NULL OR mark NOT LIKE 'genesis-pg%' THEN
        RAISE EXCEPTION 'schema genesis of database % is there, belongs to role %, and was not made by genesis-pg',
            current_database(), schema_owner
            USING ERRCODE = 'GE001', HINT = 'Nothing was touched. Rename that schema, or use another database '
                '(--repository). If it was made for genesis-pg: COMMENT ON SCHEMA genesis IS ''genesis-pg''.';
    END IF;
    IF NOT pg_has_role(schema_owner, 'MEMBER') THEN
        RAISE EXCEPTION 'schema genesis of database % belongs to role %, and role % is no member of it',
            current_database(), schema_owner, current_user
            -- a member of a superuser would be one too
            USING ERRCODE = 'GE001', HINT = format(
                CASE WHEN (SELECT rolsuper FROM pg_roles WHERE rolname = schema_owner)
                    THEN 'Nothing was touched. Connect as %I, or keep a schema of your own in another database.'
                    ELSE 'Nothing was touched. Connect as %I, or GRANT %1$I TO %2$I.' END,
                schema_owner, current_user);
    END IF;
    IF known_version IS NOT NULL
        AND (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
        AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = schema_owner)
    THEN
        -- a trigger of the owner's would run here, and RESET ROLE gives it what SET ROLE took away
        RAISE EXCEPTION 'schema genesis of database % belongs to role %, whose functions must not run for a superuser',
            current_database(), schema_owner
            USING ERRCODE = 'GE001', HINT = format('Nothing was touched. Connect as %I.', schema_owner);
    END IF;
    IF schema_owner <> current_user THEN
        -- a superuser's upgrade must not leave objects that the owner cannot use
        EXECUTE format('SET LOCAL ROLE %I', schema_owner);
    END IF;
    IF known_version IS NOT NULL AND to_regclass('genesis.schema_version') IS NOT NULL THEN
        SELECT max(version) INTO found_version FROM genesis.schema_version;
        IF found_version > known_version THEN
            RAISE EXCEPTION 'schema genesis of database % is at version %, and this program knows only up to %',
                current_database(), found_version, known_version
                USING ERRCODE = 'GE002', HINT = 'Nothing was touched. Upgrade genesis-pg to the version that made it.';
        END IF;
    END IF;
END
$guard$;
