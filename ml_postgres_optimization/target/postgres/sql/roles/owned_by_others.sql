-- What bears our mark and belongs to another role than the one that tunes, with that role, and whether it may do as much
-- anyway: a superuser, or whoever asks. Schemas first, then what is in them. What
-- belongs to a table (its type, its indexes, the sequence of an identity) goes with it; the constructors of a range type
-- stay with whoever made the cluster, as PostgreSQL made them.
WITH /* genesis-pg */ ours AS (
    SELECT oid, nspname, nspowner
    FROM pg_namespace
    WHERE nspname IN ('genesis', 'genesis_simulation') AND obj_description(oid, 'pg_namespace') LIKE 'genesis-pg%%'
),
object (rank, class, id, owner) AS (
    SELECT 1, 'pg_namespace'::regclass, oid, nspowner FROM ours
    UNION ALL
    SELECT 2, 'pg_class'::regclass, pg_class.oid, relowner
    FROM pg_class
    JOIN ours ON relnamespace = ours.oid
    WHERE relkind IN ('r', 'p', 'v', 'm', 'f')
        OR relkind = 'S' AND NOT EXISTS (
            SELECT FROM pg_depend WHERE objid = pg_class.oid AND deptype IN ('a', 'i') AND refobjsubid > 0)
    UNION ALL
    SELECT 3, 'pg_type'::regclass, pg_type.oid, typowner
    FROM pg_type
    JOIN ours ON typnamespace = ours.oid
    WHERE typtype IN ('d', 'e', 'r')
        OR typtype = 'c' AND EXISTS (SELECT FROM pg_class WHERE pg_class.oid = typrelid AND relkind = 'c')
    UNION ALL
    SELECT 4, 'pg_proc'::regclass, pg_proc.oid, proowner
    FROM pg_proc
    JOIN ours ON pronamespace = ours.oid
    WHERE NOT EXISTS (
        SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid = pg_proc.oid AND deptype = 'i')
)
SELECT
    upper(split_part(description.type, ' ', -1)), description.identity, role.rolname,
    role.rolsuper OR role.rolname = current_user
FROM object
JOIN pg_roles AS role ON role.oid = owner
CROSS JOIN pg_identify_object(class, id, 0) AS description
WHERE owner IS DISTINCT FROM (SELECT oid FROM pg_roles WHERE rolname = %(role)s)
ORDER BY rank, description.identity
