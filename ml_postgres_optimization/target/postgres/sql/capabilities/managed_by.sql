-- Who else manages this server's configuration, with what gives them away; no row where nobody does.
-- Patroni passes all of these on the command line, which is above ALTER SYSTEM (patroni:patroni/postgresql/config.py,
-- CMDLINE_OPTIONS). CloudNativePG puts a hash of its configuration into a setting of its own
-- (cloudnative-pg:pkg/postgres/configuration.go). A managed service shows by its settings, or by the role that it hands
-- out instead of a superuser.
WITH /* genesis-pg */ by_setting (manager, prefix) AS (
    VALUES
        ('Amazon RDS', 'rds.'),
        ('Google Cloud SQL', 'cloudsql.'),
        ('Google AlloyDB', 'alloydb.'),
        ('Azure Database for PostgreSQL', 'azure.'),
        ('Neon', 'neon.')
),
by_role (manager, role) AS (
    VALUES
        ('Amazon RDS', 'rds_superuser'),
        ('Google Cloud SQL', 'cloudsqlsuperuser'),
        ('Google AlloyDB', 'alloydbsuperuser'),
        ('Azure Database for PostgreSQL', 'azure_pg_admin'),
        ('Neon', 'neon_superuser'),
        ('Supabase', 'supabase_admin')
)
SELECT 'Patroni' AS manager
FROM pg_settings
WHERE source = 'command line'
    AND name IN (
        'cluster_name', 'hot_standby', 'max_connections', 'max_locks_per_transaction', 'max_prepared_transactions',
        'max_replication_slots', 'max_wal_senders', 'max_worker_processes', 'track_commit_timestamp', 'wal_level',
        'wal_log_hints'
    )
HAVING count(*) = 11
UNION ALL
SELECT 'CloudNativePG' WHERE current_setting('cnpg.config_sha256', true) IS NOT NULL
UNION ALL
(SELECT manager FROM by_setting JOIN pg_settings ON starts_with(pg_settings.name, prefix) LIMIT 1)
UNION ALL
(SELECT manager FROM by_role JOIN pg_roles ON rolname = role LIMIT 1)
LIMIT 1
