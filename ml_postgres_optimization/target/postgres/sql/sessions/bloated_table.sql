-- The table of this database with the most dead rows. VACUUM passes over what a role may not vacuum with a mere WARNING,
-- so that it is asked first; from PostgreSQL 17 on MAINTAIN is a privilege, before it is the owner's right.
-- https://www.postgresql.org/docs/current/sql-vacuum.html
SELECT
    statistics.schemaname::text AS schema,
    statistics.relname::text AS name,
    statistics.n_dead_tup::bigint AS dead_rows,
    statistics.n_live_tup::bigint AS live_rows,
    EXISTS (
        SELECT FROM pg_catalog.pg_stat_progress_vacuum AS running
        WHERE running.relid = statistics.relid AND running.datname = current_database()
    ) AS is_vacuumed,
    CASE
        WHEN current_setting('server_version_num')::integer >= 170000
            THEN pg_catalog.has_table_privilege(statistics.relid, 'MAINTAIN')
        ELSE pg_catalog.pg_has_role(class.relowner, 'USAGE')
    END OR pg_catalog.pg_has_role(database.datdba, 'USAGE') AS may_be_vacuumed
FROM pg_catalog.pg_stat_user_tables AS statistics
JOIN pg_catalog.pg_class AS class ON class.oid = statistics.relid
JOIN pg_catalog.pg_database AS database ON database.datname = current_database()
WHERE statistics.schemaname <> 'genesis' AND class.relpersistence <> 't'
ORDER BY statistics.n_dead_tup DESC, statistics.relid
LIMIT 1
