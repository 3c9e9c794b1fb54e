-- As autovacuum does: its own delay, or the usual one where it has none; VACUUM by itself would not rest at all.
-- https://www.postgresql.org/docs/current/runtime-config-resource.html#RUNTIME-CONFIG-RESOURCE-VACUUM-COST
SELECT /* genesis-pg */ set_config(
    'vacuum_cost_delay',
    CASE WHEN setting::double precision > 0 THEN setting || 'ms' ELSE '2ms' END,
    false
)
FROM pg_catalog.pg_settings
WHERE name = 'autovacuum_vacuum_cost_delay'
