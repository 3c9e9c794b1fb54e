"""PostgreSQL 14 to 18 behind the protocols of `target`."""
