-- Write-ahead log made and written; one row. Times are NULL where track_wal_io_timing is off.
-- 18 moved writes and syncs from pg_stat_wal to pg_stat_io; context init is the zeroing of new segments.
-- https://www.postgresql.org/docs/18/monitoring-stats.html#MONITORING-PG-STAT-WAL-VIEW
SELECT /* genesis-pg */
    wal.wal_records AS records_total,
    wal.wal_fpi AS full_page_images_total,
    wal.wal_bytes AS generated_bytes_total,
    wal.wal_buffers_full AS buffers_full_total,
    io.writes AS writes_total,
    io.syncs AS syncs_total,
    CASE WHEN current_setting('track_wal_io_timing')::boolean THEN io.write_time / 1000 END AS write_seconds_total,
    CASE WHEN current_setting('track_wal_io_timing')::boolean THEN io.sync_time / 1000 END AS sync_seconds_total
FROM pg_catalog.pg_stat_wal AS wal
CROSS JOIN (
    SELECT
        sum(writes) AS writes,
        sum(fsyncs) AS syncs,
        sum(write_time) AS write_time,
        sum(fsync_time) AS sync_time
    FROM pg_catalog.pg_stat_io
    WHERE object = 'wal' AND context = 'normal'
) AS io
