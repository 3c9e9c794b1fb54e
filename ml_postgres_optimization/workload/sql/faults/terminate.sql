-- Sessions of our own load in this database and no others; those at work first, since an idle one has no operation to
-- fail. The limit stands in a subquery of its own, so that nobody beyond it is signalled.
SELECT pid
FROM (
    SELECT pid, pg_terminate_backend(pid) AS was_signalled
    FROM (
        SELECT pid
        FROM pg_stat_activity
        WHERE application_name = %(name)s
            AND datname = current_database()
            AND backend_type = 'client backend'
            AND pid <> ALL (%(but)s::integer[])
            AND (%(idle_too)s OR state <> 'idle')
        ORDER BY state = 'idle', pid
        LIMIT %(most)s
    ) AS chosen
) AS signalled
WHERE was_signalled
