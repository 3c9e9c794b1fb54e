-- When this is, by the server's clock, when the configuration files were taken over last, and whether it is a standby.
SELECT /* genesis-pg */ clock_timestamp(), pg_conf_load_time(), pg_is_in_recovery()
