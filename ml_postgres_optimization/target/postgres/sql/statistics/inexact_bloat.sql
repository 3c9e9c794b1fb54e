-- Dead and free space in the tables of our own load, read from the pages that are not all visible; one row, asked most
-- seldom, and only below 1 GB. The placeholder is the schema that extension pgstattuple stands in.
-- https://www.postgresql.org/docs/current/pgstattuple.html
SELECT /* genesis-pg */
    sum(found.dead_tuple_len) AS dead_bytes,
    sum(found.approx_free_space) AS free_bytes
FROM (
    SELECT relid
    FROM pg_catalog.pg_stat_user_tables
    WHERE schemaname = 'genesis_load'
        AND (
            SELECT sum(pg_relation_size(relid)) < 1073741824
            FROM pg_catalog.pg_stat_user_tables
            WHERE schemaname = 'genesis_load'
        )
) AS small
CROSS JOIN LATERAL {schema}.pgstattuple_approx(small.relid) AS found
