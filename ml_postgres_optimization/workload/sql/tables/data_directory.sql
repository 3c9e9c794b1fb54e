-- Only a superuser or a member of pg_read_all_settings sees it.
SELECT setting
FROM pg_settings
WHERE name = 'data_directory'
