-- The background writer, and what backends had to write themselves since it did not keep up; one row.
-- https://www.postgresql.org/docs/16/monitoring-stats.html#MONITORING-PG-STAT-BGWRITER-VIEW
SELECT /* genesis-pg */
    buffers_clean AS cleaned_blocks_total,
    maxwritten_clean AS stopped_rounds_total,
    buffers_alloc AS allocated_blocks_total,
    buffers_backend AS backend_written_blocks_total,
    buffers_backend_fsync AS backend_syncs_total
FROM pg_catalog.pg_stat_bgwriter
