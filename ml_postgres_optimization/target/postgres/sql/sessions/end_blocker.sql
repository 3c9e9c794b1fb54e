-- Ends it if it is the same session, in the same idleness, and somebody waits for it still.
SELECT coalesce(bool_or(pg_catalog.pg_terminate_backend(blocker.pid)), false)
FROM pg_catalog.pg_stat_activity AS blocker
WHERE blocker.pid = %(pid)s
    AND blocker.backend_start = %(backend_start)s
    AND blocker.state_change = %(idle_since)s
    AND blocker.state IN ('idle in transaction', 'idle in transaction (aborted)')
    AND EXISTS (
        SELECT FROM pg_catalog.pg_stat_activity AS waiting
        WHERE waiting.wait_event_type = 'Lock' AND blocker.pid = ANY (pg_catalog.pg_blocking_pids(waiting.pid))
    )
