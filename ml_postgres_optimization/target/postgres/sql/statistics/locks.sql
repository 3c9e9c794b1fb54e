-- Heavyweight locks held and waited for, on the whole server, our own left out; one row.
-- https://www.postgresql.org/docs/current/view-pg-locks.html
SELECT /* genesis-pg */
    count(*) FILTER (WHERE granted) AS granted,
    count(*) FILTER (WHERE NOT granted) AS waiting,
    coalesce(max(extract(epoch FROM clock_timestamp() - waitstart)), 0) AS oldest_wait_seconds
FROM pg_catalog.pg_locks
WHERE pid IS DISTINCT FROM pg_backend_pid()
