"""What each kind of operation does on a connection of asyncpg."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache
from importlib.resources import files
from typing import Any, cast

from ml_postgres_optimization.workload.operation import OperationKind

Connection = Any  # asyncpg.Connection: asyncpg ships no types
Performer = Callable[[int, int, int], Awaitable[object]]
_ONE_PARAMETER = frozenset(
    {OperationKind.READ, OperationKind.UPDATE, OperationKind.DELETE, OperationKind.AGGREGATE, OperationKind.JOIN}
)


@cache
def query(name: str) -> str:
    """Return the SQL of ``sql/<name>.sql``, folder included."""
    return files("ml_postgres_optimization.workload").joinpath("sql", f"{name}.sql").read_text("utf-8")


async def prepare(connection: Connection, kind: OperationKind, account_count: int) -> Performer:
    """Prepare the statements of `kind` on `connection`, and return what performs it.

    Parameters
    ----------
    connection : asyncpg.Connection
    kind : OperationKind
    account_count : int
        Accounts in the tables; keys go from 1 to it.

    Returns
    -------
    callable
        Takes key, other key and amount, and returns an awaitable. Whatever asyncpg raises comes through.
    """
    if kind is OperationKind.TRANSACTION:
        return await _prepare_transaction(connection)
    run = (await connection.prepare(query(f"operations/{kind}"))).fetch
    if kind in _ONE_PARAMETER:
        return lambda key, _other, _amount: cast(Awaitable[object], run(key))
    if kind is OperationKind.BULK_INSERT:
        return lambda key, other, amount: cast(Awaitable[object], run(key, other, account_count, amount))
    return lambda key, _other, amount: cast(Awaitable[object], run(key, amount))


async def _prepare_transaction(connection: Connection) -> Performer:
    move = (await connection.prepare(query("operations/transaction_move"))).fetch
    operation = (await connection.prepare(query("operations/transaction_operation"))).fetch
    event = (await connection.prepare(query("operations/transaction_event"))).fetch

    async def perform(key: int, other: int, amount: int) -> None:
        """Move `amount` from one account to another; in the order of keys, so that no two can deadlock."""
        moves = sorted(((key, -amount), (other, amount)))
        async with connection.transaction():
            for account, change in moves:
                await move(account, change)
            await operation(key, amount)
            await event(key, other, amount)

    return perform
