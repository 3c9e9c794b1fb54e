COMMENT ON SCHEMA {schema} IS {marker}
