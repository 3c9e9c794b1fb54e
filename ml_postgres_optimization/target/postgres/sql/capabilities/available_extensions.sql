-- The extensions whose files are on the server.
SELECT /* genesis-pg */ name::text FROM pg_available_extensions
