-- The process that really answers: a connection pooler announces another.
SELECT /* genesis-pg */ pg_catalog.pg_backend_pid()
