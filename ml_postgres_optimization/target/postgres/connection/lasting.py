"""A session that outlives a restart of the server."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self, TypeVar

import psycopg
from psycopg import Connection
from psycopg.rows import TupleRow

from ml_postgres_optimization.errors import ServerUnreachable
from ml_postgres_optimization.target.postgres.connection.session import connect, translated
from ml_postgres_optimization.target.postgres.connection.settings import ConnectionSettings

Result = TypeVar("Result")


class LastingConnection:
    """A session that is opened anew, once, when it turns out to be lost.

    Parameters
    ----------
    settings : ConnectionSettings
    purpose : str
        See `connect`.
    accept : callable, optional
        Looks at every new connection and raises where it leads to the wrong server.

    Notes
    -----
    What is run must bear being run twice. Not thread safe.
    """

    def __init__(
        self,
        settings: ConnectionSettings,
        purpose: str,
        accept: Callable[[Connection[TupleRow]], None] | None = None,
    ) -> None:
        self._settings = settings
        self._purpose = purpose
        self._accept = accept
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

    def close(self) -> None:
        """Close the session; the next `run` opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, work: Callable[[Connection[TupleRow]], Result], doing: str) -> Result:
        with translated(self._settings, doing):
            if self._connection is None:
                self._connection = self._opened()
            return work(self._connection)

    def _opened(self) -> Connection[TupleRow]:
        connection = connect(self._settings, purpose=self._purpose)
        if self._accept is not None:
            try:
                self._accept(connection)
            except BaseException:
                connection.close()
                raise
        return connection
