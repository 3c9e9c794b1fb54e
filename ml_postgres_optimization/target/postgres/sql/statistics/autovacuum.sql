-- Autovacuum workers at this moment, on the whole server; one row, asked seldom.
-- The start is NULL where the role may not see it.
-- https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-ACTIVITY-VIEW
SELECT /* genesis-pg */
    count(*) AS workers,
    CASE
        WHEN count(*) = 0 THEN 0
        ELSE max(extract(epoch FROM clock_timestamp() - xact_start))
    END AS longest_seconds
FROM pg_catalog.pg_stat_activity
WHERE backend_type = 'autovacuum worker'
