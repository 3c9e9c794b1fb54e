"""One connection of the load, and what its failures are called."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

import asyncpg  # type: ignore[import-untyped]

from ml_postgres_optimization.retry import Failure, failure_of
from ml_postgres_optimization.retry.failures import Lost
from ml_postgres_optimization.workload.mix import Mix
from ml_postgres_optimization.workload.operation import OperationKind
from ml_postgres_optimization.workload.script import ScriptMix, script_performer
from ml_postgres_optimization.workload.statements import Connection, Performer, prepare, query

FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
# Others' schemas cannot shadow PostgreSQL's functions (CVE-2018-1058), and nobody waits for a lock for ever. There is
# no statement_timeout: it costs the server 4 µs for each statement, a sixth of a read by key (our measurement), and
# no statement of ours runs long by itself.
_OUR_DEFAULTS = {"search_path": "pg_catalog, pg_temp", "lock_timeout": "60s"}
_KINDS = tuple(OperationKind)
Prepare = Callable[[Connection, int], Awaitable[Performer]]


def session_defaults(mix: Mix) -> Mapping[str, str]:
    """Return what every session is SET for this mix, below what the plan says."""
    return mix.session_settings if isinstance(mix, ScriptMix) else _OUR_DEFAULTS


def preparer(mix: Mix, *, account_count: int, session_number: int, ledger: tuple[str, int] | None = None) -> Prepare:
    """Return what prepares the kinds of `mix` on a connection.

    Parameters
    ----------
    mix : Mix
    account_count : int
        Accounts in the tables of our own operations.
    session_number : int
        What a script knows as ``:client_id``.
    ledger : tuple of str and int, optional
        Run and epoch in whose ledger operations that write book themselves; the session takes a seat in it.
    """
    seats: list[int] = []

    async def prepared(connection: Connection, kind_index: int) -> Performer:
        if isinstance(mix, ScriptMix):
            return script_performer(mix, kind_index, connection, session_number)
        if ledger is None:
            return await prepare(connection, _KINDS[kind_index], account_count)
        if not seats:
            seats.append(await _seat(connection, ledger))
        return await prepare(connection, _KINDS[kind_index], account_count, seats[0])

    return prepared


async def _seat(connection: Connection, ledger: tuple[str, int]) -> int:
    seat = await connection.fetchval(query("session/seat"), *ledger)
    if seat is None:
        raise ConnectionRefusedError(f"run {ledger[0]} has another runner by now")
    return int(seat)


_NOT_CONNECTED = b"08001"
_CLOSE_TIMEOUT_SECONDS = 2.0


class Session:
    """A connection with the prepared statements of the kinds that it has been asked for.

    Parameters
    ----------
    connection : asyncpg.Connection
    prepare : callable
        Takes the connection and the position of a kind, and returns an awaitable of what performs it.
    kind_count : int
    beginning : mapping of str to str
        What it is SET for as long as it lives.
    settings : mapping of str to str
        What it is SET beyond that, until it is arranged otherwise: the very object that `arrange` was given.
    """

    def __init__(
        self,
        connection: Connection,
        prepare: Prepare,
        kind_count: int,
        *,
        beginning: Mapping[str, str],
        settings: Mapping[str, str],
    ) -> None:
        self._connection = connection
        self._prepare = prepare
        self._beginning = beginning
        self.settings = settings
        # two attributes rather than methods of ours, since both are used for every operation
        self.performers: list[Performer | None] = [None] * kind_count
        self.is_closed: Callable[[], bool] = connection.is_closed

    @classmethod
    async def open(
        cls,
        connect: Mapping[str, Any],
        prepare: Prepare,
        shares: Sequence[float],
        *,
        beginning: Mapping[str, str],
        settings: Mapping[str, str],
    ) -> Session:
        """Connect, SET `beginning` and `settings` over it, and prepare the kinds that have a share.

        Any of `FAILURES` comes through.
        """
        connection = await asyncpg.connect(**connect)
        try:
            session = cls(connection, prepare, len(shares), beginning=beginning, settings=settings)
            await session.set({**beginning, **settings})
            for kind_index, share in enumerate(shares):
                if share > 0:
                    await session.prepare(kind_index)
        except BaseException:
            connection.terminate()
            raise
        return session

    async def prepare(self, kind_index: int) -> Performer:
        """Prepare what performs operations of a kind; any of `FAILURES` comes through."""
        performer = await self._prepare(self._connection, kind_index)
        self.performers[kind_index] = performer
        return performer

    async def arrange(self, settings: Mapping[str, str]) -> None:
        """SET `settings` over what it began with, and let every statement be planned anew; `FAILURES` come through.

        What was SET by the call before, and is not any more, goes back to what it was at the beginning. Without new
        plans, statements that have a generic one would keep it, whatever the planner would do under new settings.
        """
        await self.set({name: self._beginning.get(name) for name in self.settings} | dict(settings))
        await self._connection.execute(query("session/replan"))
        self.settings = settings

    async def set(self, values: Mapping[str, str | None]) -> None:
        """SET each, or put back what the server says where it is None; `FAILURES` come through."""
        await self._connection.fetch(query("session/settings"), [*values], [*values.values()])

    def forget(self, kind_index: int) -> None:
        """Prepare this kind anew at its next use, since its plan or result may have changed under it."""
        self.performers[kind_index] = None

    async def close(self) -> None:
        """Say goodbye to the server, or hang up where it does not answer."""
        try:
            await self._connection.close(timeout=_CLOSE_TIMEOUT_SECONDS)
        except (*FAILURES, asyncio.CancelledError):
            self._connection.terminate()


def failure_in(error: BaseException) -> Failure:
    """Return what `retry` reads in any of `FAILURES`; what it takes for somebody else's is a lost connection."""
    return failure_of(error) or Failure(None, str(error), Lost.GONE)


def sqlstate_of(error: BaseException, *, connecting: bool = False) -> bytes:
    """Return the SQLSTATE that says most about a failure; 08001 while connecting, where the driver gives none."""
    failure = failure_in(error)
    return _NOT_CONNECTED if connecting and failure.sqlstate is None else failure.code.encode()


Opener = Callable[[Mapping[str, str]], Coroutine[Any, Any, Session]]
