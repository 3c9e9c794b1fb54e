"""A session that outlives a restart of the server."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self, TypeVar

import psycopg
from psycopg import Connection
from psycopg.rows import TupleRow

from ml_postgres_optimization.errors import ServerUnreachable
from ml_postgres_optimization.target.postgres.connection.session import connect, session_name, translated
from ml_postgres_optimization.target.postgres.connection.settings import ConnectionSettings
from ml_postgres_optimization.target.postgres.queries import read_query

Result = TypeVar("Result")
_LONGEST_BEAT_SECONDS = 5.0
# few, since others count sessions by their names
_NAMES_OF_BEATS = 10


Prepare = Callable[[Connection[TupleRow]], None]


class LastingConnection:
    """A session that is opened anew, once, when it turns out to be lost.

    Parameters
    ----------
    settings : ConnectionSettings
    purpose : str
        See `connect`.
    accept : callable, optional
        Looks at every new connection and raises where it leads to the wrong server.

    Attributes
    ----------
    settings : ConnectionSettings
    name : str
        What it goes by on the server: its ``application_name``, followed by more once it has beaten.
    was_lost : bool
        Whether the session that a right was bound to was lost, and another has taken its place.

    Notes
    -----
    What is run must bear being run twice. Not thread safe.
    """

    def __init__(
        self,
        settings: ConnectionSettings,
        purpose: str,
        accept: Prepare | None = None,
    ) -> None:
        self.settings = settings
        self.name = session_name(purpose)
        self._beats = 0
        self._purpose = purpose
        self._accept = accept
        self._retake: Prepare | None = None
        self.was_lost = False
        self._beating = threading.Lock()
        self._hanging: list[Connection[TupleRow]] = []
        self._connection: Connection[TupleRow] | None = None

    def run(self, work: Callable[[Connection[TupleRow]], Result], doing: str) -> Result:
        """Return what `work` returns for the connection; after a loss of the connection, of a new one.

        Parameters
        ----------
        doing : str
            What `work` does, for errors: see `translated`.

        Raises
        ------
        ServerUnreachable
            If the server cannot be reached again.
        PrivilegeMissing, ReadOnlyServer, TargetError
            As `translated` says.
        """
        had_one = self._connection is not None
        try:
            return self._run(work, doing)
        except ServerUnreachable:
            self.close()
            if not had_one:
                raise
        return self._run(work, doing)

    def run_bound(self, work: Callable[[Connection[TupleRow]], Result], doing: str) -> Result:
        """Return what `work` returns for the session that a right is bound to; like `run` where none is (`bind`).

        Raises
        ------
        ServerUnreachable
            If that session was lost, even if another has taken its place since.
        PrivilegeMissing, ReadOnlyServer, TargetError
            As `translated` says.
        """
        if self._retake is None:
            return self.run(work, doing)
        if self._connection is None or self.was_lost:
            raise ServerUnreachable(
                f"Our session on {self.settings.display} was lost, and with it the right to {doing}.", "Start again."
            )
        with translated(self.settings, doing):
            return work(self._connection)

    def beat(self) -> None:
        """Let the server see that the session lives, in any thread; nothing happens where it is lost.

        Its name changes for that: everybody sees that, whatever statistics the server keeps of sessions.
        """
        with self._beating:
            connection = self._connection
            if connection is not None:
                with suppress(Exception):  # a beat that fails is a beat that is missed
                    self._beats = (self._beats + 1) % _NAMES_OF_BEATS
                    name = f"{self.name} beat {self._beats}"
                    connection.execute(read_query("connection/beat"), {"name": name})

    def bind(self, retake: Prepare) -> None:
        """Bind a right to the session that is there: one that takes its place has it only by `retake`."""
        self._retake, self.was_lost = retake, False

    def unbind(self) -> None:
        """Take that back."""
        self._retake = None

    def close(self) -> None:
        """Close the session; the next `run` opens another."""
        connection, self._connection = self._connection, None
        # libpq may not be closed under another thread; a beat that hangs keeps its connection until it is done
        if connection is None:
            return
        if not self._beating.acquire(timeout=_LONGEST_BEAT_SECONDS):
            self._hanging.append(connection)
            return
        try:
            with suppress(psycopg.Error):
                connection.close()
        finally:
            self._beating.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, work: Callable[[Connection[TupleRow]], Result], doing: str) -> Result:
        with translated(self.settings, doing):
            if self._connection is None:
                self._connection = self._opened()
            return work(self._connection)

    def _opened(self) -> Connection[TupleRow]:
        connection = connect(self.settings, purpose=self._purpose)
        try:
            if self._accept is not None:
                self._accept(connection)
            if self._retake is not None:
                self.was_lost = True
                self._retake(connection)
        except BaseException:
            connection.close()
            raise
        return connection
