-- How many extended tests are at work in this database: the key is that of lock.sql, and the other one of ours is the
-- optimiser's (target/postgres/sql/lock).
SELECT count(*)
FROM pg_locks
WHERE locktype = 'advisory' AND classid = 1734700645 AND objid <> 1869640809 AND objsubid = 2 AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
