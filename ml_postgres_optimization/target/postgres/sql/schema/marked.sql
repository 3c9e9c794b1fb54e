-- Schemas that setup_db.sql and simulate_load.sql made, in the order in which drop.sql drops them.
SELECT nspname::text
FROM pg_catalog.pg_namespace
WHERE nspname IN ('genesis', 'genesis_simulation') AND obj_description(oid, 'pg_namespace') LIKE 'genesis-pg%'
ORDER BY nspname
