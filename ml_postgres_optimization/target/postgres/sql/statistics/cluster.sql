-- The whole server: sums over all databases, and how far it is from its limits; one row.
-- transaction_ids_total is the next transaction id with its epoch: what feeds anti-wraparound vacuum.
-- https://www.postgresql.org/docs/current/routine-vacuuming.html#VACUUM-FOR-WRAPAROUND
SELECT /* genesis-pg */
    sum(xact_commit) AS commits_total,
    sum(xact_rollback) AS rollbacks_total,
    sum(temp_bytes) AS temp_bytes_total,
    sum(deadlocks) AS deadlocks_total,
    pg_snapshot_xmax(pg_current_snapshot())::text::numeric AS transaction_ids_total,
    sum(numbackends) AS backends,
    current_setting('max_connections')::integer AS max_connections,
    (SELECT max(age(datfrozenxid)) FROM pg_catalog.pg_database) AS oldest_transaction_id_age,
    (SELECT max(mxid_age(datminmxid)) FROM pg_catalog.pg_database) AS oldest_multixact_age,
    extract(epoch FROM clock_timestamp() - pg_postmaster_start_time()) AS uptime_seconds
FROM pg_catalog.pg_stat_database
