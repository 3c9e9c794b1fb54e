-- When this is, by the server's clock, and when the configuration files were taken over last.
SELECT /* genesis-pg */ clock_timestamp(), pg_conf_load_time()
