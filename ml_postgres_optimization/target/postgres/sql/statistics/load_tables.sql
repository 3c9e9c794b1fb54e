-- The tables of our own load, added up: files of tables, indexes and TOAST as they are now; one row, asked seldom.
-- NULL where there are none. Tuples alive and dead are the server's estimates; before 18 nobody adds up the time
-- that autovacuum takes. Whoever asks takes a share lock on each table.
-- https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADMIN-DBSIZE
SELECT /* genesis-pg */
    sum(pg_total_relation_size(relid)) AS total_bytes,
    sum(pg_indexes_size(relid)) AS index_bytes,
    sum(n_live_tup) AS live_tuples,
    sum(n_dead_tup) AS dead_tuples,
    NULL::double precision AS autovacuum_seconds
FROM pg_catalog.pg_stat_user_tables
WHERE schemaname = 'genesis_load'
