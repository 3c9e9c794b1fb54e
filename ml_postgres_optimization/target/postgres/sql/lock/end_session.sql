-- End one session, and no other that has its number by now. Tells whether it is there still.
SELECT /* genesis-pg */ pg_terminate_backend(pid)
FROM pg_stat_activity
WHERE pid = %(pid)s AND backend_start = %(started_at)s::timestamptz
