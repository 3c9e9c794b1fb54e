-- How often the least used queries were thrown out for new ones; one row.
-- The placeholder is the schema that the extension stands in.
-- https://www.postgresql.org/docs/current/pgstatstatements.html
SELECT /* genesis-pg */
    dealloc AS evictions_total
FROM {schema}.pg_stat_statements_info
