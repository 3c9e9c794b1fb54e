-- Relation I/O by who did it: sessions (client), autovacuum (vacuum), every other process (background); one row.
-- Times are NULL where track_io_timing is off. 18 counts bytes, and WAL beside relations.
-- https://www.postgresql.org/docs/18/monitoring-stats.html#MONITORING-PG-STAT-IO-VIEW
SELECT /* genesis-pg */
    sum(read_bytes) FILTER (WHERE actor = 'client') AS client_read_bytes_total,
    sum(written_bytes) FILTER (WHERE actor = 'client') AS client_written_bytes_total,
    sum(extended_bytes) FILTER (WHERE actor = 'client') AS client_extended_bytes_total,
    sum(hit_blocks) FILTER (WHERE actor = 'client') AS client_hit_blocks_total,
    sum(evicted_blocks) FILTER (WHERE actor = 'client') AS client_evicted_blocks_total,
    sum(syncs) FILTER (WHERE actor = 'client') AS client_syncs_total,
    sum(read_seconds) FILTER (WHERE actor = 'client') AS client_read_seconds_total,
    sum(write_seconds) FILTER (WHERE actor = 'client') AS client_write_seconds_total,
    sum(read_bytes) FILTER (WHERE actor = 'vacuum') AS vacuum_read_bytes_total,
    sum(written_bytes) FILTER (WHERE actor = 'vacuum') AS vacuum_written_bytes_total,
    sum(extended_bytes) FILTER (WHERE actor = 'vacuum') AS vacuum_extended_bytes_total,
    sum(hit_blocks) FILTER (WHERE actor = 'vacuum') AS vacuum_hit_blocks_total,
    sum(evicted_blocks) FILTER (WHERE actor = 'vacuum') AS vacuum_evicted_blocks_total,
    sum(syncs) FILTER (WHERE actor = 'vacuum') AS vacuum_syncs_total,
    sum(read_seconds) FILTER (WHERE actor = 'vacuum') AS vacuum_read_seconds_total,
    sum(write_seconds) FILTER (WHERE actor = 'vacuum') AS vacuum_write_seconds_total,
    sum(read_bytes) FILTER (WHERE actor = 'background') AS background_read_bytes_total,
    sum(written_bytes) FILTER (WHERE actor = 'background') AS background_written_bytes_total,
    sum(extended_bytes) FILTER (WHERE actor = 'background') AS background_extended_bytes_total,
    sum(hit_blocks) FILTER (WHERE actor = 'background') AS background_hit_blocks_total,
    sum(evicted_blocks) FILTER (WHERE actor = 'background') AS background_evicted_blocks_total,
    sum(syncs) FILTER (WHERE actor = 'background') AS background_syncs_total,
    sum(read_seconds) FILTER (WHERE actor = 'background') AS background_read_seconds_total,
    sum(write_seconds) FILTER (WHERE actor = 'background') AS background_write_seconds_total
FROM (
    SELECT
        CASE
            WHEN backend_type IN ('client backend', 'background worker') THEN 'client'
            WHEN backend_type IN ('autovacuum worker', 'autovacuum launcher') THEN 'vacuum'
            ELSE 'background'
        END AS actor,
        coalesce(read_bytes, 0) AS read_bytes,
        coalesce(write_bytes, 0) AS written_bytes,
        coalesce(extend_bytes, 0) AS extended_bytes,
        coalesce(hits, 0) AS hit_blocks,
        coalesce(evictions, 0) AS evicted_blocks,
        coalesce(fsyncs, 0) AS syncs,
        CASE WHEN current_setting('track_io_timing')::boolean THEN coalesce(read_time, 0) / 1000 END AS read_seconds,
        CASE WHEN current_setting('track_io_timing')::boolean THEN coalesce(write_time, 0) / 1000 END AS write_seconds
    FROM pg_catalog.pg_stat_io
    WHERE object <> 'wal'
) AS io
