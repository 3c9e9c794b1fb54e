-- Leaves no trace: the triggers on the user's tables go with the function that they call. Runs after guard.sql.
DO $drop$
BEGIN
    IF to_regnamespace('genesis_simulation') IS NOT NULL
        AND obj_description(to_regnamespace('genesis_simulation'), 'pg_namespace') LIKE 'genesis-pg%' THEN
        DROP SCHEMA genesis_simulation CASCADE;
    END IF;
    IF to_regnamespace('genesis') IS NULL THEN
        RAISE NOTICE 'there is no schema genesis in database %', current_database();
    ELSE
        DROP SCHEMA genesis CASCADE;
    END IF;
END
$drop$;
