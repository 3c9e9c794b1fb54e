-- Who serves this session and since when, and where its files are (NULL where the role may not know); one row.
-- https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-ACTIVITY-VIEW
SELECT /* genesis-pg */
    pg_backend_pid() AS backend_pid,
    extract(epoch FROM backend_start)::double precision AS backend_start_seconds,
    (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'data_directory') AS data_directory
FROM pg_catalog.pg_stat_activity
WHERE pid = pg_backend_pid()
