-- Give a session of ours its limits. Nothing is set, and no row returned, where a connection pooler stands between
-- (it reports another process than the one that answers): there a SET would stay behind in a session of the application.
-- Every name is qualified: this runs before search_path is safe (CVE-2018-1058).
SELECT /* genesis-pg */ pg_catalog.set_config(setting.name, setting.value, false)
FROM ROWS FROM (
    pg_catalog.unnest(%(names)s::pg_catalog.text[]),
    pg_catalog.unnest(%(values)s::pg_catalog.text[])
) AS setting (name, value)
WHERE pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) %(backend_pid)s::pg_catalog.int4
