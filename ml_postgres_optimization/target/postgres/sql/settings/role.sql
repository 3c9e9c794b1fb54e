-- What a role is, and whether ours may give it settings: from PostgreSQL 16 on CREATEROLE alone does not suffice.
SELECT /* genesis-pg */
    role.rolname::text AS name,
    role.rolsuper AS is_superuser,
    role.rolname IN (session_user, current_user) AS is_ours,
    role.rolcanlogin AS may_log_in,
    ours.rolsuper
        OR ours.rolcreaterole
        AND (
            current_setting('server_version_num')::integer < 160000
            OR pg_has_role(role.oid, 'MEMBER WITH ADMIN OPTION')
        ) AS may_be_set
FROM pg_catalog.pg_roles AS role
JOIN pg_catalog.pg_roles AS ours ON ours.rolname = current_user
WHERE role.rolname = %(name)s
