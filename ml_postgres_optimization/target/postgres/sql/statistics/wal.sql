-- Write-ahead log made and written; one row. Times are NULL where track_wal_io_timing is off.
-- https://www.postgresql.org/docs/17/monitoring-stats.html#MONITORING-PG-STAT-WAL-VIEW
SELECT /* genesis-pg */
    wal_records AS records_total,
    wal_fpi AS full_page_images_total,
    wal_bytes AS generated_bytes_total,
    wal_buffers_full AS buffers_full_total,
    wal_write AS writes_total,
    wal_sync AS syncs_total,
    CASE WHEN current_setting('track_wal_io_timing')::boolean THEN wal_write_time / 1000 END AS write_seconds_total,
    CASE WHEN current_setting('track_wal_io_timing')::boolean THEN wal_sync_time / 1000 END AS sync_seconds_total
FROM pg_catalog.pg_stat_wal
