-- The settings of these names. reset_val rather than setting: what a session has that sets nothing by itself, as ours do
-- for statement_timeout and a few more. sourcefile is NULL where the role may not see it.
-- https://www.postgresql.org/docs/current/view-pg-settings.html
SELECT /* genesis-pg */
    name, reset_val AS text, vartype AS kind, unit, context, source, min_val::float8 AS minimum,
    max_val::float8 AS maximum, enumvals, boot_val AS boot_value, pending_restart, sourcefile
FROM pg_settings
WHERE name = ANY (%(names)s)
