"""What each kind of operation does on a connection of asyncpg."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import cache
from importlib.resources import files
from typing import Any, cast

from ml_postgres_optimization.retry import Phase
from ml_postgres_optimization.workload.operation import OperationKind

Connection = Any  # asyncpg.Connection: asyncpg ships no types
Performer = Callable[[int, int, int], Awaitable[object]]
_Run = Callable[..., Awaitable[object]]
_ONE_PARAMETER = frozenset(
    {OperationKind.READ, OperationKind.UPDATE, OperationKind.DELETE, OperationKind.AGGREGATE, OperationKind.JOIN}
)


_BOOKED = frozenset({OperationKind.WRITE, OperationKind.UPDATE, OperationKind.DELETE, OperationKind.BULK_INSERT})


@cache
def query(name: str) -> str:
    """Return the SQL of ``sql/<name>.sql``, folder included."""
    return files("ml_postgres_optimization.workload").joinpath("sql", f"{name}.sql").read_text("utf-8")


def statement_names(kind: OperationKind, *, is_booked: bool) -> tuple[str, ...]:
    """Return the statements that an operation of a kind consists of, as `query` knows them, in their order."""
    books = "operations/booked" if is_booked else "operations"
    if kind is OperationKind.TRANSACTION:
        return "operations/transaction_move", "operations/transaction_operation", f"{books}/transaction_event"
    return (f"{books if kind in _BOOKED else 'operations'}/{kind}",)


async def prepare(
    connection: Connection, kind: OperationKind, account_count: int, seat: int | None = None
) -> Performer:
    """Prepare the statements of `kind` on `connection`, and return what performs it.

    Parameters
    ----------
    connection : asyncpg.Connection
    kind : OperationKind
    account_count : int
        Accounts in the tables; keys go from 1 to it.
    seat : int, optional
        The session's row in the ledger, in which what writes books itself; nothing is booked where it is absent.

    Returns
    -------
    callable
        Takes key, other key and amount, and returns an awaitable. Whatever asyncpg raises comes through.
    """
    if kind is OperationKind.TRANSACTION:
        return await _prepare_transaction(connection, seat)
    (name,) = statement_names(kind, is_booked=seat is not None)
    run = (await connection.prepare(query(name))).fetch
    if seat is not None and kind in _BOOKED:
        run = _with_last(run, seat)
    if kind in _ONE_PARAMETER:
        return lambda key, _other, _amount: cast(Awaitable[object], run(key))
    if kind is OperationKind.BULK_INSERT:
        return lambda key, other, amount: cast(Awaitable[object], run(key, other, account_count, amount))
    return lambda key, _other, amount: cast(Awaitable[object], run(key, amount))


def _with_last(run: _Run, seat: int | None) -> _Run:
    return lambda *arguments: run(*arguments, seat)


async def _prepare_transaction(connection: Connection, seat: int | None) -> Transfer:
    names = statement_names(OperationKind.TRANSACTION, is_booked=seat is not None)
    move, operation, event = [(await connection.prepare(query(name))).fetch for name in names]
    return Transfer(
        connection,
        move=move,
        operation=operation,
        event=event if seat is None else _with_last(event, seat),
        is_booked=seat is not None,
    )


class Transfer:
    """Move an amount from one account to another; in the order of keys, so that no two can deadlock.

    Parameters
    ----------
    connection : asyncpg.Connection
    move, operation, event : callable
        Run its statements.
    is_booked : bool
        Whether the last one returns a row only where the session still has its seat in the ledger.

    Attributes
    ----------
    phase : Phase
        How far the transfer has come that is under way, or that was last.
    """

    def __init__(
        self, connection: Connection, *, move: _Run, operation: _Run, event: _Run, is_booked: bool = False
    ) -> None:
        self._connection = connection
        self._move, self._operation, self._event = move, operation, event
        self._is_booked = is_booked
        self.phase = Phase.BEGINNING

    async def __call__(self, key: int, other: int, amount: int) -> None:
        """Do it."""
        self.phase = Phase.BEGINNING
        transaction = self._connection.transaction()
        await transaction.start()
        self.phase = Phase.IN_TRANSACTION
        try:
            for account, change in sorted(((key, -amount), (other, amount))):
                await self._move(account, change)
            await self._operation(key, amount)
            booked = await self._event(key, other, amount)
            if self._is_booked and not booked:
                raise ConnectionRefusedError("the run has another runner by now")
        except BaseException:
            # what failed first is what there is to tell; where nobody can roll back, the connection is gone
            with suppress(Exception):
                await transaction.rollback()
            raise
        self.phase = Phase.COMMIT_SENT
        await transaction.commit()


def phase_of(performer: Performer | None) -> Phase:
    """Return how far the last operation of a performer has come; None stands for one that could not be prepared.

    A statement that is sent by itself brings its own COMMIT.
    """
    if performer is None:
        return Phase.BEGINNING
    return performer.phase if isinstance(performer, Transfer) else Phase.COMMIT_SENT
