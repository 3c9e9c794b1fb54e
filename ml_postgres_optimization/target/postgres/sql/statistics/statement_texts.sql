-- The texts of the queries asked for, of all users and databases; the placeholder is the schema of the extension.
-- https://www.postgresql.org/docs/current/pgstatstatements.html
SELECT /* genesis-pg */
    queryid,
    userid,
    dbid,
    query AS statement
FROM {schema}.pg_stat_statements(true)
WHERE toplevel AND queryid = ANY(%(queryids)s)
