-- Checkpoints: how many, asked for by whom, and what they cost; one row. 17 gave them a view of their own.
-- https://www.postgresql.org/docs/17/monitoring-stats.html#MONITORING-PG-STAT-CHECKPOINTER-VIEW
SELECT /* genesis-pg */
    num_timed AS timed_checkpoints_total,
    num_requested AS requested_checkpoints_total,
    write_time / 1000 AS write_seconds_total,
    sync_time / 1000 AS sync_seconds_total,
    buffers_written AS written_blocks_total
FROM pg_catalog.pg_stat_checkpointer
