COMMENT ON SCHEMA genesis_load IS {marker}
