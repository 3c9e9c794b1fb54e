-- Replication slots and the WAL that the last of them holds back; one row.
-- https://www.postgresql.org/docs/current/view-pg-replication-slots.html
SELECT /* genesis-pg */
    count(*) AS count,
    count(*) FILTER (WHERE NOT active) AS inactive,
    count(*) FILTER (WHERE wal_status = 'lost') AS lost,
    coalesce(
        max(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END - restart_lsn),
        0
    ) AS retained_wal_bytes
FROM pg_catalog.pg_replication_slots
