-- Ends it if it is the same session, in the same idleness, may be ended at all, and somebody waits for it still.
SELECT coalesce(bool_or(pg_catalog.pg_terminate_backend(blocker.pid)), false)
FROM pg_catalog.pg_stat_activity AS blocker
JOIN pg_catalog.pg_roles AS role ON role.oid = blocker.usesysid AND NOT role.rolsuper
WHERE blocker.pid = %(pid)s
    AND blocker.backend_start = %(backend_start)s
    AND blocker.state_change = %(idle_since)s
    AND blocker.backend_type = 'client backend'
    AND blocker.datname = current_database()
    AND blocker.state IN ('idle in transaction', 'idle in transaction (aborted)')
    AND blocker.application_name NOT LIKE 'genesis-%%'
    AND blocker.application_name NOT LIKE 'pg\_dump%%'
    AND EXISTS (
        SELECT FROM (
            SELECT pid FROM pg_catalog.pg_stat_activity
            WHERE wait_event_type = 'Lock' AND datname = current_database()
            LIMIT 50
        ) AS waiting
        WHERE blocker.pid = ANY (pg_catalog.pg_blocking_pids(waiting.pid))
    )
