-- The background writer, and what backends had to write themselves since it did not keep up; one row.
-- 18 counts bytes, since one operation may span several blocks.
-- https://www.postgresql.org/docs/18/monitoring-stats.html#MONITORING-PG-STAT-IO-VIEW
SELECT /* genesis-pg */
    writer.buffers_clean AS cleaned_blocks_total,
    writer.maxwritten_clean AS stopped_rounds_total,
    writer.buffers_alloc AS allocated_blocks_total,
    io.written_bytes / current_setting('block_size')::integer AS backend_written_blocks_total,
    io.syncs AS backend_syncs_total
FROM pg_catalog.pg_stat_bgwriter AS writer
CROSS JOIN (
    SELECT
        coalesce(sum(write_bytes), 0) + coalesce(sum(extend_bytes), 0) AS written_bytes,
        coalesce(sum(fsyncs), 0) AS syncs
    FROM pg_catalog.pg_stat_io
    WHERE object = 'relation' AND backend_type NOT IN ('background writer', 'checkpointer')
) AS io
