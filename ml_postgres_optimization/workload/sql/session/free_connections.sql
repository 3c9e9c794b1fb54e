-- What an ordinary role may still open. Without pg_monitor the kind of other roles' backends is hidden; those that
-- are in a database count as clients then. reserved_connections exists from 16 on.
SELECT
    current_setting('max_connections')::integer
    - current_setting('superuser_reserved_connections')::integer
    - coalesce(current_setting('reserved_connections', true)::integer, 0)
    - (
        SELECT count(*)::integer
        FROM pg_stat_activity
        WHERE datid IS NOT NULL
            AND coalesce(backend_type, 'client backend') = 'client backend'
            AND pid <> pg_backend_pid()
    )
