-- What all sessions did in the current database; one row.
-- Times on blocks are NULL where track_io_timing is off: not measured, rather than zero.
-- https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-DATABASE-VIEW
SELECT /* genesis-pg */
    xact_commit AS commits_total,
    xact_rollback AS rollbacks_total,
    blks_read AS read_blocks_total,
    blks_hit AS hit_blocks_total,
    tup_returned AS returned_tuples_total,
    tup_fetched AS fetched_tuples_total,
    tup_inserted AS inserted_tuples_total,
    tup_updated AS updated_tuples_total,
    tup_deleted AS deleted_tuples_total,
    temp_files AS temp_files_total,
    temp_bytes AS temp_bytes_total,
    deadlocks AS deadlocks_total,
    conflicts AS conflicts_total,
    sessions AS sessions_total,
    sessions_abandoned AS abandoned_sessions_total,
    sessions_fatal AS fatal_sessions_total,
    sessions_killed AS killed_sessions_total,
    session_time / 1000 AS session_seconds_total,
    active_time / 1000 AS active_seconds_total,
    idle_in_transaction_time / 1000 AS idle_in_transaction_seconds_total,
    CASE WHEN current_setting('track_io_timing')::boolean THEN blk_read_time / 1000 END AS block_read_seconds_total,
    CASE WHEN current_setting('track_io_timing')::boolean THEN blk_write_time / 1000 END AS block_write_seconds_total,
    numbackends AS backends
FROM pg_catalog.pg_stat_database
WHERE datname = current_database()
