"""The server's wall clock may be set back; a reload is one all the same."""

import pytest

from ml_postgres_optimization.target.postgres.actuator import PostgresActuator
from ml_postgres_optimization.target.postgres.capabilities import read_capabilities
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings, LastingConnection, connect
from ml_postgres_optimization.telemetry import VirtualClock


@pytest.fixture
def actuator(own_server):
    settings = ConnectionSettings.from_dsn(own_server.dsn)
    with connect(settings) as connection:
        capabilities = read_capabilities(connection)
    session = LastingConnection(settings, "settings")
    yield PostgresActuator(settings, capabilities, session, clock=VirtualClock())
    session.close()


def test_a_reload_is_seen_after_the_clock_was_set_back(actuator, monkeypatch):
    seen = actuator._loaded_at
    before = iter([seen() + 3600.0])  # as it was read an hour ahead, just before somebody set the clock right
    monkeypatch.setattr(actuator, "_loaded_at", lambda: next(before, None) or seen())
    actuator.reload()
