SELECT /* genesis-pg */ clock_timestamp()
