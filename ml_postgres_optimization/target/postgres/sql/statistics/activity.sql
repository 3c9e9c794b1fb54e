-- Who is doing what right now, on the whole server; one row. Sessions of genesis-pg itself are left out; those of its
-- load generator (genesis-load) are load like any other. A role that may not see the sessions of others gets NULL
-- for their backend_type: such a session counts as a connection, and as nothing else.
-- https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-ACTIVITY-VIEW
WITH /* genesis-pg */ session AS (
    SELECT
        coalesce(backend_type, 'client backend') AS backend_type,
        state,
        wait_event_type,
        extract(epoch FROM clock_timestamp() - xact_start) AS transaction_seconds
    FROM pg_catalog.pg_stat_activity
    WHERE pid <> pg_backend_pid()
        AND (
            backend_type IN ('client backend', 'parallel worker')
            OR (backend_type IS NULL AND usesysid IS NOT NULL AND datid IS NOT NULL)
        )
        AND application_name NOT LIKE 'genesis-pg%'
),
wait AS (
    SELECT coalesce(wait_event_type, 'CPU') AS class, count(*) AS sessions
    FROM session
    WHERE state = 'active'
    GROUP BY 1
)
SELECT
    (SELECT coalesce(jsonb_object_agg(class, sessions), jsonb_build_object()) FROM wait) AS active_sessions_by_wait,
    count(*) FILTER (WHERE backend_type = 'client backend') AS connections,
    count(*) FILTER (WHERE state = 'active' AND wait_event_type = 'Lock') AS blocked_sessions,
    count(*) FILTER (WHERE state LIKE 'idle in transaction%') AS idle_in_transaction_sessions,
    coalesce(max(transaction_seconds) FILTER (WHERE backend_type = 'client backend'), 0)::double precision
        AS longest_transaction_seconds
FROM session
