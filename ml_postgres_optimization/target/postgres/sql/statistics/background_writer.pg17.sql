-- The background writer, and what backends had to write themselves since it did not keep up; one row.
-- 17 dropped buffers_backend: pg_stat_io has the same (op_bytes is the block size in 16 and 17).
-- https://www.postgresql.org/docs/17/monitoring-stats.html#MONITORING-PG-STAT-BGWRITER-VIEW
SELECT /* genesis-pg */
    writer.buffers_clean AS cleaned_blocks_total,
    writer.maxwritten_clean AS stopped_rounds_total,
    writer.buffers_alloc AS allocated_blocks_total,
    io.written_blocks AS backend_written_blocks_total,
    io.syncs AS backend_syncs_total
FROM pg_catalog.pg_stat_bgwriter AS writer
CROSS JOIN (
    SELECT
        coalesce(sum(writes), 0) + coalesce(sum(extends), 0) AS written_blocks,
        coalesce(sum(fsyncs), 0) AS syncs
    FROM pg_catalog.pg_stat_io
    WHERE object = 'relation' AND backend_type NOT IN ('background writer', 'checkpointer')
) AS io
