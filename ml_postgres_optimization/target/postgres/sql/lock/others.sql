-- Who else on this server holds the lock, in whatever database: pg_locks shows the locks of all to everybody.
-- Of the session a role without pg_monitor sees the name and the database only.
-- https://www.postgresql.org/docs/current/view-pg-locks.html, on advisory locks
SELECT /* genesis-pg */ pid, application_name, usename, datname, backend_start
FROM pg_locks
LEFT JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory'
    AND classid = %(class)s
    AND objid = %(object)s
    AND objsubid = 2
    AND granted
    AND pid <> pg_backend_pid()
ORDER BY backend_start
