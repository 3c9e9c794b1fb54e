-- Who else manages this server's configuration, with what gives them away; no row where nobody does.
-- Patroni passes all of these on the command line, which is above ALTER SYSTEM (patroni:patroni/postgresql/config.py,
-- CMDLINE_OPTIONS), and includes the configuration that it found as postgresql.base.conf; its path is hidden from a
-- role without pg_read_all_settings. CloudNativePG puts a hash of its configuration into a setting of its own, and
-- archives by its own program (cloudnative-pg:pkg/postgres/configuration.go). A managed service shows by settings of its
-- own; or by two roles together: the one that it hands out instead of a superuser, and the superuser that it keeps. One
-- of them alone may have come with a dump. Aurora has a function for its version.
WITH /* genesis-pg */ service (manager, prefix, setting, administrator, kept_superuser) AS (
    VALUES
        ('Amazon RDS', 'rds.', 'rds.extensions', 'rds_superuser', 'rdsadmin'),
        ('Google Cloud SQL', 'cloudsql.', 'cloudsql.iam_authentication', 'cloudsqlsuperuser', 'cloudsqladmin'),
        ('Google AlloyDB', 'alloydb.', 'alloydb.iam_authentication', 'alloydbsuperuser', 'alloydbadmin'),
        ('Azure Database for PostgreSQL', 'azure.', 'azure.extensions', 'azure_pg_admin', 'azuresu'),
        ('Neon', 'neon.', 'neon.tenant_id', 'neon_superuser', 'cloud_admin'),
        ('Supabase', 'supautils.', 'supautils.superuser', 'supabase_auth_admin', 'supabase_admin')
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
(SELECT 'Patroni' FROM pg_settings WHERE sourcefile LIKE '%/postgresql.base.conf' LIMIT 1)
UNION ALL
SELECT 'CloudNativePG'
WHERE current_setting('cnpg.config_sha256', true) IS NOT NULL
    OR EXISTS (
        SELECT FROM pg_settings WHERE name = 'archive_command' AND setting LIKE '/controller/manager wal-archive%')
UNION ALL
SELECT 'Amazon Aurora' WHERE to_regprocedure('pg_catalog.aurora_version()') IS NOT NULL
UNION ALL
(
    SELECT manager
    FROM service
    WHERE current_setting(setting, true) IS NOT NULL
        OR EXISTS (SELECT FROM pg_settings WHERE starts_with(name, prefix))
        OR EXISTS (SELECT FROM pg_roles WHERE rolname = administrator)
            AND EXISTS (SELECT FROM pg_roles WHERE rolname = kept_superuser AND rolsuper)
    LIMIT 1
)
LIMIT 1
