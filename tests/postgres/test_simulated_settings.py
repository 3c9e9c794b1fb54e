"""The simulated server's settings are those of a real PostgreSQL 15."""

import psycopg
import pytest

from ml_postgres_optimization.target.simulated.stock import STOCK

# what a build may do without
OPTIONAL = {"lz4", "zstd"}
ROWS = """
    SELECT name, vartype, unit, context, min_val, max_val, enumvals, boot_val
    FROM pg_settings WHERE name = ANY(%s)
"""


@pytest.mark.pg("== 15")
def test_the_simulated_settings_are_those_of_postgresql_15(server):
    with psycopg.connect(server.dsn) as connection:
        rows = {row[0]: row for row in connection.execute(ROWS, [list(STOCK)])}
    assert set(rows) == set(STOCK)
    for name, setting in STOCK.items():
        _, kind, unit, context, low, high, enumvals, boot = rows[name]
        assert (setting.kind, setting.unit, setting.context, setting.boot_value) == (kind, unit, context, boot), name
        lacking = OPTIONAL - set(enumvals or ())
        assert tuple(value for value in setting.enumvals if value not in lacking) == tuple(enumvals or ()), name
        assert setting.minimum == (None if low is None else float(low)), name
        assert setting.maximum == (None if high is None else float(high)), name
