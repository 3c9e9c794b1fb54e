-- Leaves no trace: the triggers on the user's tables go with the function that they call. Runs after guard.sql.
-- Whoever works on a watched table waits as long as we wait for those who did before.
SET LOCAL lock_timeout = '500ms';

-- What others made of our objects would go with these without a word, and their data with it.
DO $refuse$
DECLARE
    found text[];
BEGIN
    WITH schema AS (
        SELECT oid FROM pg_namespace
        WHERE nspname IN ('genesis', 'genesis_simulation') AND obj_description(oid, 'pg_namespace') LIKE 'genesis-pg%'
    ),
    ours (class, object) AS (
        SELECT 'pg_namespace'::regclass, oid FROM schema
        UNION ALL
        SELECT 'pg_class'::regclass, pg_class.oid FROM pg_class JOIN schema ON relnamespace = schema.oid
        UNION ALL
        SELECT 'pg_type'::regclass, pg_type.oid FROM pg_type JOIN schema ON typnamespace = schema.oid
        UNION ALL
        SELECT 'pg_proc'::regclass, pg_proc.oid FROM pg_proc JOIN schema ON pronamespace = schema.oid
        UNION ALL
        SELECT 'pg_constraint'::regclass, pg_constraint.oid FROM pg_constraint JOIN schema ON connamespace = schema.oid
    ),
    -- what is in no schema is where its relation is; a view depends on others by its rule
    attached (class, object, relation, shown_class, shown_object) AS (
        SELECT
            'pg_rewrite'::regclass, oid, ev_class,
            CASE rulename WHEN '_RETURN' THEN 'pg_class'::regclass ELSE 'pg_rewrite'::regclass END,
            CASE rulename WHEN '_RETURN' THEN ev_class ELSE oid END
        FROM pg_rewrite
        UNION ALL
        SELECT 'pg_attrdef'::regclass, oid, adrelid, 'pg_attrdef'::regclass, oid FROM pg_attrdef
        UNION ALL
        SELECT 'pg_policy'::regclass, oid, polrelid, 'pg_policy'::regclass, oid FROM pg_policy
        UNION ALL
        SELECT 'pg_trigger'::regclass, oid, tgrelid, 'pg_trigger'::regclass, oid FROM pg_trigger
    )
    SELECT array_agg(DISTINCT pg_describe_object(
        coalesce(attached.shown_class, link.classid), coalesce(attached.shown_object, link.objid), link.objsubid))
    INTO found
    FROM pg_depend AS link
    JOIN ours ON ours.class = link.refclassid AND ours.object = link.refobjid
    LEFT JOIN attached ON attached.class = link.classid AND attached.object = link.objid
    -- normal dependencies, and tables that are attached as partitions
    WHERE (link.deptype = 'n' OR link.deptype = 'a' AND link.classid = 'pg_class'::regclass)
        AND NOT EXISTS (
            SELECT FROM ours AS own
            WHERE own.class = CASE WHEN attached.relation IS NULL THEN link.classid ELSE 'pg_class'::regclass END
                AND own.object = coalesce(attached.relation, link.objid))
        AND NOT EXISTS (
            SELECT FROM pg_trigger AS watching
            WHERE link.classid = 'pg_trigger'::regclass AND watching.oid = link.objid
                AND watching.tgfoid = to_regprocedure('genesis.record_operation()'));
    IF found IS NOT NULL THEN
        RAISE EXCEPTION 'objects of others need what would be dropped: %',
            array_to_string(found[:10], ', ')
                || CASE WHEN cardinality(found) > 10 THEN format(' and %s more', cardinality(found) - 10) ELSE '' END
            USING ERRCODE = 'dependent_objects_still_exist', HINT = 'Nothing was touched. Drop or change them first.';
    END IF;
END
$refuse$;

DO $drop$
DECLARE
    schema_owner name;
BEGIN
    IF to_regnamespace('genesis') IS NULL THEN
        RAISE NOTICE 'there is no schema genesis in database %', current_database();
    ELSE
        DROP SCHEMA genesis CASCADE;
    END IF;
    SELECT pg_get_userbyid(nspowner) INTO schema_owner
    FROM pg_namespace
    WHERE nspname = 'genesis_simulation' AND obj_description(oid, 'pg_namespace') LIKE 'genesis-pg%';
    IF schema_owner IS NULL THEN
        RETURN;
    END IF;
    IF NOT pg_has_role(session_user, schema_owner, 'MEMBER') THEN
        RAISE EXCEPTION 'schema genesis_simulation of database % belongs to role %, and role % is no member of it',
            current_database(), schema_owner, session_user
            USING ERRCODE = 'GE001', HINT = format('Nothing was touched. Connect as %I, or GRANT %1$I TO %2$I.',
                schema_owner, session_user);
    END IF;
    IF NOT pg_has_role(schema_owner, 'USAGE') THEN
        -- guard.sql took the role of the owner of genesis, who need not be the owner of this one
        EXECUTE format('SET LOCAL ROLE %I', schema_owner);
    END IF;
    DROP SCHEMA genesis_simulation CASCADE;
EXCEPTION
    WHEN lock_not_available THEN
        RAISE EXCEPTION 'a watched table, or one of genesis-pg itself, is in use in database %', current_database()
            USING ERRCODE = 'GE004',
                HINT = 'Nothing was touched. Try again when it is quieter; pg_stat_activity shows who is at work.';
END
$drop$;
