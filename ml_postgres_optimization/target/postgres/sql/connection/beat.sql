SELECT /* genesis-pg */ 1
