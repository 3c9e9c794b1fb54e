-- What this program knows, for guard.sql.
SELECT set_config('genesis.known_version', %(version)s, true)
