-- What holds for all sessions of the server: reset_val, but of no setting that this role, database or client has
-- otherwise, since another observer would see another value; nor what belongs to one session or transaction. Commands,
-- connection strings, and texts of extensions are left out, since they may hold secrets.
-- genesis.settings_in_force() is the same inside of the server, but for what its session has set.
--
-- What our session has set for itself hides where it had it from: for this one statement that is forgotten. The filter
-- that holds no column comes before the view is read.
WITH /* genesis-pg */ ours AS MATERIALIZED (
    SELECT name
    FROM pg_settings
    WHERE source = 'session'
        AND name NOT IN ('role', 'seed', 'session_authorization') AND name NOT LIKE 'transaction\_%'
),
forgotten AS MATERIALIZED (
    SELECT count(set_config(name, NULL, true)) AS settings FROM ours
)
SELECT live.name, live.reset_val AS value, live.unit, live.vartype AS kind
FROM pg_settings AS live
WHERE (SELECT settings FROM forgotten) >= 0
    AND live.reset_val IS NOT NULL
    AND (live.context <> 'internal' OR live.name = 'server_version')
    AND live.source NOT IN ('client', 'global', 'database', 'user', 'database user')
    AND live.name NOT IN (
        'application_name', 'client_encoding', 'role', 'seed', 'session_authorization',
        'transaction_deferrable', 'transaction_isolation', 'transaction_read_only'
    )
    AND NOT (live.vartype = 'string' AND live.name ~ '_(command|conninfo)$|\.')
    AND NOT EXISTS (
        SELECT
        FROM pg_db_role_setting AS given
        JOIN LATERAL unnest(given.setconfig) AS line (text) ON lower(split_part(line.text, '=', 1)) = lower(live.name)
        WHERE given.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
            AND given.setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = session_user))
    )
