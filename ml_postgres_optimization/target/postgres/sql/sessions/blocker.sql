-- The session of this database that most others wait for, and that is idle in a transaction; none where a role may not
-- see it. Superusers' sessions, our own and those of a dump are nobody's to end. At most 50 of those who wait are asked
-- for: pg_blocking_pids takes the lock manager's locks for a moment.
-- https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-SESSION
SELECT
    blocker.pid,
    blocker.backend_start,
    blocker.state_change,
    blocker.usename::text,
    blocker.application_name,
    extract(epoch FROM clock_timestamp() - blocker.state_change)::double precision,
    count(DISTINCT waiting.pid)::integer
FROM (
    SELECT pid FROM pg_catalog.pg_stat_activity
    WHERE wait_event_type = 'Lock' AND datname = current_database()
    LIMIT 50
) AS waiting
CROSS JOIN LATERAL unnest(pg_catalog.pg_blocking_pids(waiting.pid)) AS by (pid)
JOIN pg_catalog.pg_stat_activity AS blocker ON blocker.pid = by.pid
JOIN pg_catalog.pg_roles AS role ON role.oid = blocker.usesysid AND NOT role.rolsuper
WHERE blocker.backend_type = 'client backend'
    AND blocker.datname = current_database()
    AND blocker.state IN ('idle in transaction', 'idle in transaction (aborted)')
    AND blocker.application_name NOT LIKE 'genesis-%%'
    AND blocker.application_name NOT LIKE 'pg\_dump%%'
    AND blocker.state_change < clock_timestamp() - make_interval(secs => %(idle_seconds)s)
GROUP BY 1, 2, 3, 4, 5
ORDER BY 7 DESC, 6 DESC
LIMIT 1
