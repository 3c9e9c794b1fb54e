-- What ALTER SYSTEM wrote; of two lines for one parameter the later counts.
-- https://www.postgresql.org/docs/current/view-pg-file-settings.html
SELECT /* genesis-pg */ lower(name), setting
FROM pg_file_settings
WHERE sourcefile LIKE '%/postgresql.auto.conf' AND name IS NOT NULL
ORDER BY seqno
