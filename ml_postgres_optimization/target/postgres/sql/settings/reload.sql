SELECT /* genesis-pg */ pg_reload_conf()
