-- Checkpoints: how many, asked for by whom, and what they cost; one row.
-- https://www.postgresql.org/docs/16/monitoring-stats.html#MONITORING-PG-STAT-BGWRITER-VIEW
SELECT /* genesis-pg */
    checkpoints_timed AS timed_checkpoints_total,
    checkpoints_req AS requested_checkpoints_total,
    checkpoint_write_time / 1000 AS write_seconds_total,
    checkpoint_sync_time / 1000 AS sync_seconds_total,
    buffers_checkpoint AS written_blocks_total
FROM pg_catalog.pg_stat_bgwriter
