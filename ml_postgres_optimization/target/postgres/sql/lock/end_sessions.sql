-- End the sessions of our role that go by this name, and no others. Tells which are there still.
SELECT /* genesis-pg */ pg_terminate_backend(pid)
FROM pg_stat_activity
WHERE usename = session_user AND starts_with(application_name, %(name)s) AND pid <> pg_backend_pid()
