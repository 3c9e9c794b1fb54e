-- When this session took over the configuration files; its postmaster did so before.
SELECT /* genesis-pg */ extract(epoch FROM pg_conf_load_time())
