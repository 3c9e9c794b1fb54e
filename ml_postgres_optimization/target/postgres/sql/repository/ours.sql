-- Whether the schema genesis that is there bears our mark; no row where there is none.
SELECT coalesce(obj_description(oid, 'pg_namespace') LIKE 'genesis-pg%', false)
FROM pg_catalog.pg_namespace
WHERE nspname = 'genesis'
