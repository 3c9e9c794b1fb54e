-- Standbys and how far behind the last of them is; one row. The lag is NULL where the role may not see it.
-- https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-REPLICATION-VIEW
SELECT /* genesis-pg */
    count(*) AS standbys,
    CASE
        WHEN count(*) = 0 THEN 0
        ELSE max(
            CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END - replay_lsn
        )
    END AS replay_lag_bytes
FROM pg_catalog.pg_stat_replication
