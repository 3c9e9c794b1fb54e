-- Whether the schema genesis that is there bears our mark, and its owner where that is none who may act as our role; no
-- row where there is no schema.
SELECT
    coalesce(obj_description(oid, 'pg_namespace') LIKE 'genesis-pg%', false),
    (
        SELECT rolname
        FROM pg_roles
        WHERE pg_roles.oid = nspowner AND NOT rolsuper
            AND (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
    )
FROM pg_namespace
WHERE nspname = 'genesis'
