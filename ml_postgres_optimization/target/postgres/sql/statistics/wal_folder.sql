-- The files in pg_wal; one row, asked seldom. Takes pg_monitor.
-- https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADMIN-GENFILE
SELECT /* genesis-pg */
    sum(size) AS total_bytes,
    count(*) AS files
FROM pg_ls_waldir()
