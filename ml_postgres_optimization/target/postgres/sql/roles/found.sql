-- Which of the roles are there, and whether they bear our mark.
SELECT /* genesis-pg */ rolname::text, coalesce(shobj_description(oid, 'pg_authid') LIKE 'genesis-pg%%', false)
FROM pg_roles
WHERE rolname = ANY (%(names)s)
