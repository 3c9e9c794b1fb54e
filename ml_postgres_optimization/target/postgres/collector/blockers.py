"""Who keeps others waiting while it does nothing, and the end of such a session."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from ml_postgres_optimization.target.postgres.connection.settings import on_one_line
from ml_postgres_optimization.target.postgres.queries import read_query
from ml_postgres_optimization.target.seen import Blocker

# Shorter pauses are the application's own: it computes, or waits for another service.
_IDLE_SECONDS = 5.0


def find_blocker(connection: Connection[Any]) -> Blocker | None:
    """Return the idle session that most others wait for; None where there is none, or our role may not see it."""
    row = connection.execute(read_query("sessions/blocker"), {"idle_seconds": _IDLE_SECONDS}).fetchone()
    if row is None:
        return None
    pid, backend_start, idle_since, role, application, idle_seconds, blocked = row
    return Blocker(
        pid, backend_start, idle_since, on_one_line(role or ""), on_one_line(application), idle_seconds, blocked
    )


def end_session_of(connection: Connection[Any], blocker: Blocker) -> bool:
    """End the session of `blocker` if it is as it was seen, and return whether it was.

    Raises
    ------
    psycopg.errors.InsufficientPrivilege
        If our role may not: it takes pg_signal_backend, and a superuser for a superuser's session.
    """
    parameters = {"pid": blocker.pid, "backend_start": blocker.backend_start, "idle_since": blocker.idle_since}
    ((is_ended,),) = connection.execute(read_query("sessions/end_blocker"), parameters).fetchall()
    return bool(is_ended)
