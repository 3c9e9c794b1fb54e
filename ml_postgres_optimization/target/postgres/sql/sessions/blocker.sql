-- The session that most others wait for, and that is idle in a transaction; none where a role may not see it.
-- Asked only where sessions wait and others are idle: pg_blocking_pids takes the lock manager's locks for a moment.
-- https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-SESSION
SELECT
    blocker.pid,
    blocker.backend_start,
    blocker.state_change,
    blocker.usename::text,
    blocker.application_name,
    extract(epoch FROM clock_timestamp() - blocker.state_change)::double precision,
    count(DISTINCT waiting.pid)::integer
FROM pg_catalog.pg_stat_activity AS waiting
CROSS JOIN LATERAL unnest(pg_catalog.pg_blocking_pids(waiting.pid)) AS by (pid)
JOIN pg_catalog.pg_stat_activity AS blocker ON blocker.pid = by.pid
WHERE waiting.wait_event_type = 'Lock'
    AND blocker.backend_type = 'client backend'
    AND blocker.state IN ('idle in transaction', 'idle in transaction (aborted)')
    AND blocker.application_name NOT LIKE 'genesis-pg%%'
    AND blocker.state_change < clock_timestamp() - make_interval(secs => %(idle_seconds)s)
GROUP BY 1, 2, 3, 4, 5
ORDER BY 7 DESC, 6 DESC
LIMIT 1
