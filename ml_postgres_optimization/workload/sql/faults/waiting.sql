SELECT count(*)::integer
FROM pg_stat_activity
WHERE datname = current_database()
    AND wait_event_type = 'Lock'
    AND %(holder)s::integer = ANY (pg_blocking_pids(pid))
