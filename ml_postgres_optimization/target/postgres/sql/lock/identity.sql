-- This session: its number may come again, but not with the same start.
SELECT /* genesis-pg */ pid, backend_start
FROM pg_stat_activity
WHERE pid = pg_backend_pid()
