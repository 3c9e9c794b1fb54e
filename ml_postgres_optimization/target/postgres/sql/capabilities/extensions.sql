-- The extensions of this database, with their version and schema.
SELECT /* genesis-pg */ extname::text, extversion, nspname::text
FROM pg_extension
JOIN pg_namespace ON pg_namespace.oid = extnamespace
