SELECT coalesce(max(version), 0) FROM genesis.schema_version
