-- Counters of each normalised query, without its text, since reading the texts costs ten times as much.
-- The same in versions 1.9 to 1.12 of the extension; the placeholder is the schema that it stands in.
-- queryid is NULL for the queries of others where the role is no member of pg_read_all_stats.
-- https://www.postgresql.org/docs/current/pgstatstatements.html
SELECT /* genesis-pg */
    queryid,
    userid,
    dbid,
    calls AS calls_total,
    total_exec_time / 1000 AS execution_seconds_total,
    rows AS rows_total,
    shared_blks_read AS shared_blocks_read_total,
    shared_blks_hit AS shared_blocks_hit_total,
    temp_blks_written AS temp_blocks_written_total,
    wal_bytes::double precision AS wal_bytes_total
FROM {schema}.pg_stat_statements(false)
WHERE toplevel AND queryid IS NOT NULL
