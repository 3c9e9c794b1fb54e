-- The user's tables of the current database, added up; one row. Schema genesis, our own, is left out.
-- estimated_bytes: tables, indexes and TOAST as last counted by vacuum or analyze (16384 is the first user oid).
-- Tuples alive and dead are the server's estimates, too.
-- https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-ALL-TABLES-VIEW
SELECT /* genesis-pg */
    count(*) AS count,
    coalesce(sum(seq_scan), 0) AS seq_scans_total,
    coalesce(sum(seq_tup_read), 0) AS seq_read_tuples_total,
    coalesce(sum(idx_scan), 0) AS index_scans_total,
    coalesce(sum(idx_tup_fetch), 0) AS index_fetched_tuples_total,
    coalesce(sum(n_tup_ins), 0) AS inserted_tuples_total,
    coalesce(sum(n_tup_upd), 0) AS updated_tuples_total,
    coalesce(sum(n_tup_hot_upd), 0) AS hot_updated_tuples_total,
    coalesce(sum(n_tup_del), 0) AS deleted_tuples_total,
    coalesce(sum(vacuum_count), 0) AS vacuums_total,
    coalesce(sum(autovacuum_count), 0) AS autovacuums_total,
    coalesce(sum(analyze_count), 0) AS analyzes_total,
    coalesce(sum(autoanalyze_count), 0) AS autoanalyzes_total,
    coalesce(sum(n_live_tup), 0) AS live_tuples,
    coalesce(sum(n_dead_tup), 0) AS dead_tuples,
    coalesce(sum(n_mod_since_analyze), 0) AS tuples_modified_since_analyze,
    (
        SELECT coalesce(sum(relpages::bigint), 0) * current_setting('block_size')::bigint
        FROM pg_catalog.pg_class
        WHERE oid >= 16384
    ) AS estimated_bytes
FROM pg_catalog.pg_stat_user_tables
WHERE schemaname <> 'genesis'
