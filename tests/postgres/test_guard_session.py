"""The session inside of the server that stands by for a trial, seen by itself."""

import psycopg
import pytest

from ml_postgres_optimization.target.postgres import guard_session
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings
from ml_postgres_optimization.target.postgres.guard_session import GuardSession
from ml_postgres_optimization.target.postgres.server import PostgresTarget


@pytest.fixture
def target(database, binaries):
    if not binaries.has_library("dblink"):
        pytest.skip("these binaries come without dblink")
    settings = ConnectionSettings.from_dsn(database)
    with psycopg.connect(database) as superuser:
        superuser.execute("CREATE EXTENSION dblink")
    with PostgresTarget.open(settings) as opened:
        yield opened


def test_once_it_has_begun_nobody_waits_for_it(target, monkeypatch):
    """It had been heard already, and was waited for all the same: 5 s before every trial."""
    guard = GuardSession.open(target.settings_of_connection, target.capabilities)
    select = guard_session.select.select

    def wait(*arguments):
        assert not guard._has_begun
        return select(*arguments)

    monkeypatch.setattr(guard_session.select, "select", wait)
    try:
        guard.arm(target.changing.name, 1, (), lease_seconds=30.0, longest_seconds=60.0)
        assert guard.stands_by()
    finally:
        monkeypatch.undo()
        guard.close()
