-- Which server, database and role this is, and what the role may do; one row.
-- A member of pg_monitor sees the sessions of others. pg_settings hides what the role may not see, where
-- current_setting() would fail. pg_file_settings needs a grant on the view and on the function behind it.
SELECT /* genesis-pg */
    current_setting('server_version_num')::int AS version_num,
    current_setting('server_version') AS version,
    current_database()::text AS database,
    current_user::text AS role,
    (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS is_superuser,
    (SELECT pg_has_role(datdba, 'USAGE') FROM pg_database WHERE datname = current_database()) AS is_owner,
    (
        SELECT least(nullif(rolconnlimit, -1), nullif(datconnlimit, -1))
        FROM pg_roles, pg_database
        WHERE rolname = session_user AND NOT rolsuper AND datname = current_database()
    ) AS connection_limit,
    pg_has_role('pg_monitor', 'USAGE') AS is_monitor,
    pg_is_in_recovery() AS in_recovery,
    current_setting('transaction_read_only')::boolean AS read_only,
    has_function_privilege('pg_reload_conf()', 'EXECUTE') AS may_reload,
    coalesce(current_setting('allow_alter_system', true)::boolean, true) AS alter_system_allowed,
    pg_has_role('pg_read_all_settings', 'USAGE')
        AND has_table_privilege('pg_file_settings', 'SELECT')
        AND has_function_privilege('pg_show_all_file_settings()', 'EXECUTE') AS settings_visible,
    (SELECT setting FROM pg_settings WHERE name = 'shared_preload_libraries') AS preloaded
