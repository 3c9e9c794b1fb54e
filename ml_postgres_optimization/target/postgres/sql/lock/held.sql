SELECT /* genesis-pg */ count(*) > 0
FROM pg_locks
WHERE locktype = 'advisory'
    AND classid = %(class)s
    AND objid = %(object)s
    AND objsubid = 2
    AND granted
    AND pid = pg_backend_pid()
