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
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings, connect, is_pooled, translated
from ml_postgres_optimization.target.postgres.queries import read_query
from ml_postgres_optimization.telemetry import Clock, SystemClock

KEY = {"class": 0x67656E65, "object": 0x6F707469}
"""The two halves of the advisory lock's key: ``gene`` and ``opti`` in ASCII."""

_POLL_SECONDS = 0.1


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


class OptimizerLock:
    """A held lock; made by `optimizer_lock`."""

    def __init__(self, settings: ConnectionSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._connection = connect(settings, purpose="lock")

    def take(self, patience_seconds: float) -> None:
        """Take the lock, or wait for it for a while.

        Raises
        ------
        AlreadyRunning
            If another session holds it.
        TargetError
            If a connection pooler is between.
        """
        with translated(self._settings, "take the optimiser's lock"):
            _refuse_pooler(self._connection, self._settings)
            _acquire(self, self._settings, patience_seconds, self._clock)

    def retake(self, patience_seconds: float = 1.0) -> None:
        """Take the lock in a new session, after a restart of the server has ended the old one.

        Raises
        ------
        AlreadyRunning
            If another optimiser was faster; what is on trial is undone by it, or at our next start.
        TargetError
            If the server cannot be reached.
        """
        self._connection.close()
        self._connection = connect(self._settings, purpose="lock")
        self.take(patience_seconds)

    def close(self) -> None:
        """Release the lock and end its session."""
        with suppress(psycopg.Error):
            self._release()
        self._connection.close()

    def held(self) -> bool:
        """Tell whether the lock is still ours: no more once the session was lost, even if the server runs again."""
        try:
            return bool(self._ask("lock/held"))
        except psycopg.Error:
            return False

    def _acquire(self) -> tuple[bool, Holder | None]:
        """Try to take the lock; return whether that worked, and else who has it (None: gone since).

        Advisory locks belong to a database, so this one is taken in ours first, and then looked for in all others.
        Who comes second sees the first, since each takes its own before it looks; two at the same instant may see
        each other and both step back, but never both go on.
        """
        taken = bool(self._ask("lock/acquire"))
        holder = self._other()
        if taken and holder is not None:
            self._release()
        return taken and holder is None, holder

    def _release(self) -> None:
        self._ask("lock/release")

    def _other(self) -> Holder | None:
        with self._connection.cursor(row_factory=class_row(Holder)) as cursor:
            return cursor.execute(read_query("lock/others"), KEY).fetchone()

    def _ask(self, query: str) -> Any:
        with self._connection.cursor(row_factory=scalar_row) as cursor:
            return cursor.execute(read_query(query), KEY).fetchone()


@contextmanager
def optimizer_lock(
    settings: ConnectionSettings, *, patience_seconds: float = 1.0, clock: Clock | None = None
) -> Iterator[OptimizerLock]:
    """Hold the lock of the one optimiser that may work on a server, whichever of its databases each is connected to.

    It is a session's advisory lock: the server releases it as soon as the session ends, however it ends, and within
    about a minute when our machine vanishes (TCP keepalive).

    Parameters
    ----------
    settings : ConnectionSettings
    patience_seconds : float
        How long to wait for the lock: the server needs a moment to notice that a killed optimiser is gone.
    clock : Clock, optional

    Raises
    ------
    AlreadyRunning
        If another session holds it, with what can be seen of that session.
    TargetError
        If a connection pooler is between: it may hand our session, and the lock with it, to somebody else.
    """
    lock = OptimizerLock(settings, clock or SystemClock())
    try:
        lock.take(patience_seconds)
        yield lock
    finally:
        lock.close()


def _refuse_pooler(connection: Connection[Any], settings: ConnectionSettings) -> None:
    if is_pooled(connection):
        raise TargetError(
            f"{settings.display} is a connection pooler, in whose shared sessions no lock can be held safely.",
            "Give host and port of PostgreSQL itself; the application may go on using the pooler.",
        )


def _acquire(lock: OptimizerLock, settings: ConnectionSettings, patience_seconds: float, clock: Clock) -> None:
    deadline = clock.monotonic_seconds() + patience_seconds
    taken, holder = lock._acquire()
    while not taken:
        if clock.monotonic_seconds() >= deadline:
            raise _already_running(settings, holder)
        clock.sleep(_POLL_SECONDS)
        taken, holder = lock._acquire()


def _already_running(settings: ConnectionSettings, holder: Holder | None) -> AlreadyRunning:
    if holder is None:
        return AlreadyRunning(
            f"Another optimiser worked on {settings.display} until this moment.", "Start again: it seems to be done."
        )
    return AlreadyRunning(
        f"Another optimiser works on {settings.display}: {holder}.",
        f"Let it finish or stop it; if it hangs: SELECT pg_terminate_backend({holder.pid});",
    )
