SELECT to_regclass('genesis.schema_version') IS NOT NULL
