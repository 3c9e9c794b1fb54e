-- What an ordinary role may still open: of the server's connections, and of those that this role and this database are
-- limited to. Without pg_monitor the kind of other roles' backends is hidden; those that are in a database count as clients
-- then. reserved_connections exists from 16 on.
SELECT least(
    current_setting('max_connections')::integer
    - current_setting('superuser_reserved_connections')::integer
    - coalesce(current_setting('reserved_connections', true)::integer, 0)
    - (
        SELECT count(*)::integer
        FROM pg_stat_activity
        WHERE datid IS NOT NULL
            AND coalesce(backend_type, 'client backend') = 'client backend'
            AND pid <> pg_backend_pid()
    ),
    (
        SELECT rolconnlimit - (
            SELECT count(*)::integer FROM pg_stat_activity WHERE usesysid = pg_roles.oid AND pid <> pg_backend_pid())
        FROM pg_roles
        WHERE rolname = session_user AND rolconnlimit >= 0 AND NOT rolsuper
    ),
    (
        SELECT datconnlimit - (
            SELECT count(*)::integer FROM pg_stat_activity
            WHERE datid = pg_database.oid
                AND coalesce(backend_type, 'client backend') = 'client backend'
                AND pid <> pg_backend_pid())
        FROM pg_database
        WHERE datname = current_database() AND datconnlimit >= 0
            AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = session_user)
    )
)
