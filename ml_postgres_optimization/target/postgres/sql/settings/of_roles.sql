-- Settings of roles in databases, as the new sessions of these have them; a row each, but for what there is not. What
-- stands in pg_db_role_setting is looked at from the narrowest to the widest; where nothing stands, the configuration
-- files decide: reset_val, unless something gives our own role another.
-- https://www.postgresql.org/docs/current/catalog-pg-db-role-setting.html
SELECT /* genesis-pg */
    asked.key AS name,
    coalesce(
        given.text,
        CASE
            WHEN EXISTS (
                SELECT
                FROM pg_catalog.pg_db_role_setting AS stored
                JOIN pg_catalog.pg_roles AS ours ON ours.oid = stored.setrole AND ours.rolname = session_user
                CROSS JOIN LATERAL unnest(stored.setconfig) AS line (text)
                WHERE lower(split_part(line.text, '=', 1)) = asked.name
            ) THEN live.boot_val
            ELSE live.reset_val
        END
    ) AS text,
    live.vartype AS kind,
    live.unit,
    live.context,
    coalesce(given.source, 'default') AS source,
    live.min_val::float8 AS minimum,
    live.max_val::float8 AS maximum,
    live.boot_val AS boot_value,
    CASE given.source WHEN 'database user' THEN given.text END AS written_value
FROM unnest(%(keys)s::text[], %(names)s::text[], %(roles)s::text[], %(databases)s::text[])
    AS asked (key, name, role, database)
JOIN pg_catalog.pg_roles AS role ON role.rolname = asked.role
JOIN pg_catalog.pg_database AS database ON database.datname = asked.database
JOIN pg_catalog.pg_settings AS live ON live.name = asked.name
LEFT JOIN LATERAL (
    SELECT
        substr(line.text, strpos(line.text, '=') + 1) AS text,
        CASE
            WHEN stored.setrole = 0 AND stored.setdatabase = 0 THEN 'global'
            WHEN stored.setrole = 0 THEN 'database'
            WHEN stored.setdatabase = 0 THEN 'user'
            ELSE 'database user'
        END AS source
    FROM pg_catalog.pg_db_role_setting AS stored
    CROSS JOIN LATERAL unnest(stored.setconfig) AS line (text)
    WHERE stored.setrole IN (0, role.oid)
        AND stored.setdatabase IN (0, database.oid)
        AND lower(split_part(line.text, '=', 1)) = asked.name
    ORDER BY stored.setrole = 0, stored.setdatabase = 0
    LIMIT 1
) AS given ON true
