"""One optimiser per server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import Connection
from psycopg.rows import class_row, scalar_row

from ml_postgres_optimization.errors import AlreadyRunning, TargetError
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings, LastingConnection, is_pooled
from ml_postgres_optimization.target.postgres.queries import read_query
from ml_postgres_optimization.telemetry import Clock, SystemClock

KEY = {"class": 0x67656E65, "object": 0x6F707469}
"""The two halves of the advisory lock's key: ``gene`` and ``opti`` in ASCII."""

_POLL_SECONDS = 0.1
_END_TIMEOUT_SECONDS, _END_POLL_SECONDS = 10.0, 0.02


@dataclass(frozen=True, slots=True)
class Holder:
    """The session that holds the lock; None stands for what our role may not see.

    Parameters
    ----------
    pid : int
        Of the server's process.
    application_name, usename, datname : str or None
    backend_start : datetime or None
    """

    pid: int
    application_name: str | None
    usename: str | None
    datname: str | None
    backend_start: datetime | None

    def __str__(self) -> str:
        since = f" since {self.backend_start:%Y-%m-%d %H:%M:%S %Z}" if self.backend_start else ""
        name = self.application_name or "a session without a name"
        return f"{name} (process {self.pid}, role {self.usename}, database {self.datname}{since})"


def process_of(connection: Connection[Any]) -> int:
    """Return the number of the server's process that answers in this session.

    Raises
    ------
    psycopg.Error
        If it is lost.
    """
    return int(_ask(connection, "connection/backend"))


def holder(connection: Connection[Any]) -> Holder | None:
    """Return the session other than this one that holds the lock, in whatever database; None where there is none.

    Raises
    ------
    psycopg.Error
        If the connection is lost.
    """
    with connection.cursor(row_factory=class_row(Holder)) as cursor:
        return cursor.execute(read_query("lock/others"), KEY).fetchone()


def end_sessions(connection: Connection[Any], name: str, clock: Clock) -> None:
    """End the sessions of our role that go by `name`, and wait until they are gone: nothing more comes from them.

    Parameters
    ----------
    connection : Connection
    name : str
        Of one run's sessions, and of nobody else's (`LastingConnection.name`).
    clock : Clock

    Raises
    ------
    psycopg.Error
        If we may not.
    TargetError
        If one is still there after 10 s.
    """
    deadline = clock.monotonic_seconds() + _END_TIMEOUT_SECONDS
    while _are_there(connection, name):
        if clock.monotonic_seconds() > deadline:
            raise TargetError(f"A session {name} of a run that is gone does not end.", "See what it waits for.")
        clock.sleep(_END_POLL_SECONDS)


def _are_there(connection: Connection[Any], name: str) -> bool:
    with connection.transaction():
        connection.execute(read_query("lock/as_who_logged_in"))
        return connection.execute(read_query("lock/end_sessions"), {"name": name}).fetchone() is not None


class OptimizerLock:
    """The right to change a server, bound to the one session in which its settings are changed.

    Whoever ends that session takes the right away: what the session was about to write is never written. Where it is
    lost and opened anew, the lock is taken again before anything else, so that what is on trial can be put back; but
    the right to put something in force is gone (`held`), since somebody may have undone the trial meanwhile.

    Parameters
    ----------
    session : LastingConnection
    clock : Clock
    patience_seconds : float
        How long to wait for the lock: the server needs a moment to notice that a killed optimiser is gone.
    """

    def __init__(self, session: LastingConnection, clock: Clock, patience_seconds: float) -> None:
        self._session = session
        self._clock = clock
        self._patience_seconds = patience_seconds
        self._is_taken = False

    def take(self) -> None:
        """Take the lock, or wait for it for a while.

        Raises
        ------
        AlreadyRunning
            If another session holds it.
        TargetError
            If a connection pooler is between.
        """
        self._session.run(self._take_on, "take the optimiser's lock")
        self._session.bind(self._take_on)
        self._is_taken = True

    @contextmanager
    def over_a_restart(self) -> Iterator[None]:
        """Restart the server inside: the lock goes with its session, and is taken again at the end.

        Raises
        ------
        AlreadyRunning
            If another optimiser was faster; what is on trial is undone by it, or at our next start.
        TargetError
            If the server cannot be reached.
        """
        was_held = self.held()
        self._session.close()
        try:
            yield
        finally:
            self._session.run(lambda _: None, "take the optimiser's lock again")
            self._session.was_lost = not was_held

    def close(self) -> None:
        """Release the lock."""
        if self._is_taken:
            self._is_taken = False
            with suppress(psycopg.Error, TargetError):
                self._session.run_bound(_release, "release the optimiser's lock")
            self._session.unbind()

    def held(self) -> bool:
        """Tell whether the lock was ours all the time: no more once the session was lost."""
        if not self._is_taken:
            return False
        try:
            return bool(
                self._session.run_bound(lambda connection: _ask(connection, "lock/held"), "look for the lock")
            )
        except (psycopg.Error, TargetError):
            return False

    def _take_on(self, connection: Connection[Any]) -> None:
        settings = self._session.settings
        if is_pooled(connection):
            raise TargetError(
                f"{settings.display} is a connection pooler, in whose shared sessions no lock can be held safely.",
                "Give host and port of PostgreSQL itself; the application may go on using the pooler.",
            )
        deadline = self._clock.monotonic_seconds() + self._patience_seconds
        taken, other = _try_to_acquire(connection)
        while not taken:
            if self._clock.monotonic_seconds() >= deadline:
                raise _already_running(settings, other)
            self._clock.sleep(_POLL_SECONDS)
            taken, other = _try_to_acquire(connection)


@contextmanager
def optimizer_lock(
    session: LastingConnection, *, patience_seconds: float = 1.0, clock: Clock | None = None
) -> Iterator[OptimizerLock]:
    """Hold the lock of the one optimiser that may work on a server, whichever of its databases each is connected to.

    It is a session's advisory lock: the server releases it as soon as the session ends, however it ends, and within
    about a minute when our machine vanishes (TCP keepalive).

    Parameters
    ----------
    session : LastingConnection
        In which the server's settings are changed.
    patience_seconds : float
        See `OptimizerLock`.
    clock : Clock, optional

    Raises
    ------
    AlreadyRunning
        If another session holds it, with what can be seen of that session.
    TargetError
        If a connection pooler is between: it may hand our session, and the lock with it, to somebody else.
    """
    lock = OptimizerLock(session, clock or SystemClock(), patience_seconds)
    try:
        lock.take()
        yield lock
    finally:
        lock.close()


def _try_to_acquire(connection: Connection[Any]) -> tuple[bool, Holder | None]:
    """Try to take the lock; return whether that worked, and else who has it (None: gone since).

    Advisory locks belong to a database, so this one is taken in ours first, and then looked for in all others. Who
    comes second sees the first, since each takes its own before it looks; two at the same instant may see each other
    and both step back, but never both go on.
    """
    taken = bool(_ask(connection, "lock/acquire"))
    other = holder(connection)
    if taken and other is not None:
        _release(connection)
    return taken and other is None, other


def _release(connection: Connection[Any]) -> None:
    _ask(connection, "lock/release")


def _ask(connection: Connection[Any], query: str) -> Any:
    with connection.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(read_query(query), KEY).fetchone()


def _already_running(settings: ConnectionSettings, other: Holder | None) -> AlreadyRunning:
    if other is None:
        return AlreadyRunning(
            f"Another optimiser worked on {settings.display} until this moment.", "Start again: it seems to be done."
        )
    return AlreadyRunning(
        f"Another optimiser works on {settings.display}: {other}.",
        f"Let it finish or stop it; if it hangs: SELECT pg_terminate_backend({other.pid});",
    )
