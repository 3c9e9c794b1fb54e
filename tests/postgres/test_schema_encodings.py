"""Schema genesis in databases of other encodings than UTF-8."""

from uuid import uuid4

import psycopg
import pytest

from ml_postgres_optimization.target.postgres.connection import ConnectionSettings, connect
from ml_postgres_optimization.target.postgres.schema import install_schema, uninstall_schema


@pytest.fixture(params=["LATIN1", "EUC_JP"])
def encoded(server, request):
    """The settings of a database in which not every character can be written."""
    name = f"encoded_{uuid4().hex[:12]}"
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        admin.execute(
            f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{request.param}' LC_COLLATE 'C' LC_CTYPE 'C'"
        )
        yield ConnectionSettings.from_dsn(server.dsn).replaced(dbname=name)
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_it_is_made_and_records(encoded):
    with connect(encoded) as connection:
        assert install_schema(connection).version_before == 0
        connection.execute("SELECT genesis.record_window()")
        assert connection.execute("SELECT genesis.record_window()").fetchone() != (None,)
        uninstall_schema(connection)
