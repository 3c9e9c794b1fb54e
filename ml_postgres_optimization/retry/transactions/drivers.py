"""What is asked of a connection, in the words of the driver that made it; none is imported before a connection is."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol

from ml_postgres_optimization.errors import UsageError

_CONNECT_SECONDS = 5
_IDLE = 0  # of libpq's PGTransactionStatusType


class Session(Protocol):
    """A connection of any driver.

    Everything that a method returns is to be awaited where `is_async`.
    """

    is_async: bool

    def is_closed(self) -> bool:
        """Tell whether it is known to be of no use any more."""

    def is_in_transaction(self) -> bool:
        """Tell whether a transaction is open already."""

    def transaction(self) -> Any:
        """Return the driver's own context of a transaction."""

    def require_transaction(self) -> Any:
        """Make sure that a transaction is open now, where the driver may be told to have none.

        Raises
        ------
        UsageError
        """

    def flush(self) -> Any:
        """Send what is written only at the end otherwise."""

    def row(self, statement: str, *parameters: str) -> Any:
        """Return the first row of a statement, whose parameters are marked ``{}``, as a sequence."""

    def another(self) -> Any:
        """Return another connection to the same place.

        Raises
        ------
        UsageError
            If the driver keeps no record of where that is.
        """

    def close(self) -> Any:
        """Close it."""


def session_of(connection: Any) -> Session:
    """Return how to speak to `connection`.

    Raises
    ------
    UsageError
        If no driver that is known made it.
    """
    for each in type(connection).mro():
        if make := _SESSIONS.get(each.__module__.partition(".")[0]):
            return make(connection)
    raise UsageError(
        f"{type(connection).__module__}.{type(connection).__qualname__} is no connection of a known driver.",
        "Known are psycopg 3, psycopg 2, asyncpg, and SQLAlchemy on any of them.",
    )


class PsycopgSession:
    """A Connection or AsyncConnection of psycopg 3."""

    def __init__(self, connection: Any) -> None:
        psycopg = sys.modules["psycopg"]
        self.is_async = isinstance(connection, psycopg.AsyncConnection)
        self._connection = connection
        self._tuples = psycopg.rows.tuple_row
        if connection.pgconn.pipeline_status:
            raise UsageError(
                "The connection is in pipeline mode, where a reply cannot be told from another's.",
                "End the pipeline before the transaction.",
            )

    def is_closed(self) -> bool:
        """Tell whether it is known to be of no use any more."""
        return bool(self._connection.closed)

    def is_in_transaction(self) -> bool:
        """Tell whether a transaction is open already."""
        return not self._connection.closed and self._connection.info.transaction_status != _IDLE

    def transaction(self) -> Any:
        """Return the driver's own context of a transaction."""
        return self._connection.transaction()

    def require_transaction(self) -> None:
        """Nothing to see: the driver's transaction is one."""

    def flush(self) -> None:
        """Nothing to send: each statement is sent at once."""

    def row(self, statement: str, *parameters: str) -> Any:
        """Return the first row of a statement."""
        cursor = self._connection.cursor(row_factory=self._tuples)
        query = statement.replace("{}", "%s") if parameters else statement
        return (
            self._row_later(cursor, query, parameters)
            if self.is_async
            else cursor.execute(query, parameters or None).fetchone()
        )

    @staticmethod
    async def _row_later(cursor: Any, query: str, parameters: tuple[str, ...]) -> Any:
        await cursor.execute(query, parameters or None)
        return await cursor.fetchone()

    def another(self) -> Any:
        """Return another connection to the same place."""
        info = self._connection.info
        parameters = {"connect_timeout": _CONNECT_SECONDS, **info.get_parameters(), "password": info.password or None}
        return type(self._connection).connect(**parameters, autocommit=True)

    def close(self) -> Any:
        """Close it."""
        return self._connection.close()


class Psycopg2Session:
    """A connection of psycopg 2."""

    is_async = False

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        # it forgets them when it is lost
        self._parameters = {} if connection.closed else _parameters_of(connection.info)

    def is_closed(self) -> bool:
        """Tell whether it is known to be of no use any more."""
        return bool(self._connection.closed)

    def is_in_transaction(self) -> bool:
        """Tell whether a transaction is open already."""
        return not self._connection.closed and self._connection.info.transaction_status != _IDLE

    def transaction(self) -> Any:
        """Return a context of a transaction: the driver's own leaves an autocommitted one alone."""
        return _Psycopg2Transaction(self._connection)

    def require_transaction(self) -> None:
        """Nothing to see: the driver's transaction is one."""

    def flush(self) -> None:
        """Nothing to send: each statement is sent at once."""

    def row(self, statement: str, *parameters: str) -> Any:
        """Return the first row of a statement."""
        plain = sys.modules["psycopg2.extensions"].cursor
        with self._connection.cursor(cursor_factory=plain) as cursor:
            cursor.execute(statement.replace("{}", "%s") if parameters else statement, parameters or None)
            return cursor.fetchone()

    def another(self) -> Any:
        """Return another connection to the same place."""
        another = sys.modules["psycopg2"].connect(**self._parameters)
        another.autocommit = True
        return another

    def close(self) -> None:
        """Close it."""
        self._connection.close()


def _parameters_of(info: Any) -> dict[str, Any]:
    return {"connect_timeout": _CONNECT_SECONDS, **info.dsn_parameters, "password": info.password or None}


class _Psycopg2Transaction:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        if self._connection.autocommit:
            self._execute("BEGIN")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._connection.autocommit:
            self._execute("COMMIT" if error is None else "ROLLBACK")
        elif error is None:
            self._connection.commit()
        else:
            self._connection.rollback()

    def _execute(self, statement: str) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute(statement)


class AsyncpgSession:
    """A Connection of asyncpg, or one that its pool lends."""

    is_async = True

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def is_closed(self) -> bool:
        """Tell whether it is known to be of no use any more."""
        return bool(self._connection.is_closed())

    def is_in_transaction(self) -> bool:
        """Tell whether a transaction is open already."""
        return not self._connection.is_closed() and self._connection.is_in_transaction()

    def transaction(self) -> Any:
        """Return the driver's own context of a transaction."""
        return self._connection.transaction()

    def require_transaction(self) -> None:
        """Nothing to see: the driver's transaction is one."""

    def flush(self) -> None:
        """Nothing to send: each statement is sent at once."""

    def row(self, statement: str, *parameters: str) -> Any:
        """Return the first row of a statement."""
        return self._connection.fetchrow(_numbered(statement, parameters), *parameters)

    def another(self) -> Any:
        """Refuse: the driver keeps its parameters for itself."""
        raise UsageError(
            "asyncpg does not tell where a connection leads.",
            "Say how to open another: transaction(connection, reconnect=lambda: asyncpg.connect(...)).",
        )

    def close(self) -> Any:
        """Close it."""
        return self._connection.close()


class SqlalchemySession:
    """A Connection, Session, AsyncConnection or AsyncSession of SQLAlchemy."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.is_async = "Async" in type(connection).__name__ or ".asyncio" in type(connection).__module__

    def is_closed(self) -> bool:
        """Tell whether it is known to be of no use any more; a Session opens another connection by itself."""
        return bool(getattr(self._connection, "closed", False) or getattr(self._connection, "invalidated", False))

    def is_in_transaction(self) -> bool:
        """Tell whether a transaction is open already."""
        return bool(self._connection.in_transaction())

    def transaction(self) -> Any:
        """Return SQLAlchemy's own context of a transaction."""
        return self._connection.begin()

    def require_transaction(self) -> Any:
        """Make sure that SQLAlchemy was not told to commit each statement by itself."""
        return self._require_later() if self.is_async else _require_transaction(self._core())

    async def _require_later(self) -> None:
        _require_transaction((await self._core_later()).sync_connection)

    def flush(self) -> Any:
        """Send what a Session keeps until COMMIT."""
        return self._connection.flush() if hasattr(self._connection, "flush") else None

    def _core(self) -> Any:
        return self._connection if hasattr(self._connection, "exec_driver_sql") else self._connection.connection()

    async def _core_later(self) -> Any:
        is_core = hasattr(self._connection, "exec_driver_sql")
        return self._connection if is_core else await self._connection.connection()

    def row(self, statement: str, *parameters: str) -> Any:
        """Return the first row of a statement."""
        return self._row_later(statement, parameters) if self.is_async else self._row(statement, parameters)

    def _row(self, statement: str, parameters: tuple[str, ...]) -> Any:
        core = self._core()
        return core.exec_driver_sql(_in_style_of(core, statement, parameters), parameters or None).first()

    async def _row_later(self, statement: str, parameters: tuple[str, ...]) -> Any:
        core = await self._core_later()
        result = await core.exec_driver_sql(_in_style_of(core, statement, parameters), parameters or None)
        return result.first()

    def another(self) -> Any:
        """Return another connection of the same engine."""
        engine = getattr(self._connection, "engine", None) or self._connection.bind
        return (
            engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            if not self.is_async
            else _started(engine)
        )

    def close(self) -> Any:
        """Give it back to its engine."""
        return self._connection.close()


def _require_transaction(core: Any) -> None:
    if core.dialect.detect_autocommit_setting(core.connection.dbapi_connection):
        raise UsageError(
            "The connection commits each statement by itself (isolation level AUTOCOMMIT).",
            "Give its engine or the connection another isolation level.",
        )


async def _started(engine: Any) -> Any:
    connection = await engine.connect()
    return await connection.execution_options(isolation_level="AUTOCOMMIT")


def _in_style_of(connection: Any, statement: str, parameters: tuple[str, ...]) -> str:
    style = connection.dialect.paramstyle
    return _numbered(statement, parameters) if style.startswith("numeric") else statement.replace("{}", "%s")


def _numbered(statement: str, parameters: tuple[str, ...]) -> str:
    return statement.format(*(f"${number}" for number in range(1, len(parameters) + 1)))


_SESSIONS: dict[str, Callable[[Any], Session]] = {
    "psycopg": PsycopgSession,
    "psycopg2": Psycopg2Session,
    "asyncpg": AsyncpgSession,
    "sqlalchemy": SqlalchemySession,
}


def sleeping(session: Session, seconds: float) -> Any:
    """Wait as the session's kind of caller waits."""
    return asyncio.sleep(seconds) if session.is_async else time.sleep(seconds)
