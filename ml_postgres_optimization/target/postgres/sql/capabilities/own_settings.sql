-- Whoever works on this server now, by role and database, and the parameters that ALTER ROLE and ALTER DATABASE give
-- them: these win over the configuration files. A row for each pair and parameter; without one where it has none.
-- https://www.postgresql.org/docs/current/config-setting.html#CONFIG-SETTING-DATABASE
SELECT DISTINCT /* genesis-pg */
    session.usename::text || '@' || session.datname::text AS worker,
    lower(split_part(line.text, '=', 1)) AS name
FROM pg_stat_activity AS session
LEFT JOIN pg_db_role_setting AS given
    ON given.setrole IN (0, session.usesysid) AND given.setdatabase IN (0, session.datid)
LEFT JOIN LATERAL unnest(given.setconfig) AS line (text) ON true
WHERE session.usename IS NOT NULL
    AND session.datname IS NOT NULL
    AND session.pid <> pg_backend_pid()
    AND session.application_name NOT LIKE 'genesis-pg%'
