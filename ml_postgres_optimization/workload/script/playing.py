"""How a script is played on a connection: the only thing here that waits."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime, time
from decimal import Decimal
from random import Random
from typing import Any, Protocol
from uuid import UUID

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.workload.script.command import (
    Assignment,
    Command,
    Conditional,
    Script,
    Sleep,
    Statement,
    Storing,
)
from ml_postgres_optimization.workload.script.expression import (
    NAME_PATTERN,
    Scope,
    Stored,
    read,
    shown,
    truth,
    unset,
    whole,
)
from ml_postgres_optimization.workload.script.parsing import MAXIMUM_SLEEP_SECONDS
from ml_postgres_optimization.workload.script.source import printable

# as pgbench has them where nothing else is said
BUILT_IN_VALUES: Mapping[str, Stored] = {"client_id": 0, "default_seed": 0, "random_seed": 0, "scale": 1}
_ROLLBACK_TIMEOUT_SECONDS = 5.0
_ROLLBACK_ATTEMPTS = 2
_NAME = re.compile(NAME_PATTERN)
_AS_WRITTEN = (int, str, UUID, date, datetime, time)
Pause = Callable[[float], Awaitable[object]]


class Playable(Protocol):
    """What a script needs of a connection; asyncpg's has it."""

    async def execute(self, query: str, /) -> object:
        """Send a query, several statements at once if need be, and wait for its end."""

    async def fetch(self, query: str, /) -> Sequence[Any]:
        """Return the rows of a single statement, each a mapping by column."""

    def is_in_transaction(self) -> bool:
        """Whether a transaction block is open, failed or not."""


async def play(
    script: Script,
    connection: Playable,
    *,
    rng: Random,
    variables: Mapping[str, Stored] = BUILT_IN_VALUES,
    pause: Pause = asyncio.sleep,
) -> None:
    r"""Play a script once, from its first command to its last.

    Parameters
    ----------
    script : Script
    connection : Playable
        Outside any transaction.
    rng : random.Random
        What it draws from: the same seed, the same values.
    variables : mapping of str to value
        What is set from the beginning, over the built-in ones. It is not changed: each play begins anew, where
        pgbench's variables live as long as its client.
    pause : callable
        Waits for so many seconds.

    Raises
    ------
    UsageError
        If an expression cannot be evaluated, a result cannot be stored, or a transaction is open at the end.

    Notes
    -----
    Whatever the connection raises comes through. No transaction stays open: after a failure in one it is rolled
    back, unless the connection is gone.
    """
    player = _Player(script, connection, {**BUILT_IN_VALUES, **variables}, rng, pause)
    try:
        await player.perform(script.commands)
    except asyncio.CancelledError:
        # a BEGIN may be under way, of which the driver does not know yet
        await _roll_back(connection)
        raise
    except Exception:
        if _is_in_transaction(connection):
            await _roll_back(connection)
        raise
    if connection.is_in_transaction():
        await _roll_back(connection)
        raise UsageError(
            f"script {printable(script.name)} ends inside a transaction",
            "End what BEGIN begins: by COMMIT or ROLLBACK.",
        )


def _is_in_transaction(connection: Playable) -> bool:
    # asyncpg's connection does not answer once it is gone
    with suppress(Exception):
        return connection.is_in_transaction()
    return False


async def _roll_back(connection: Playable) -> None:
    """Roll back if that is possible still; the failure that led here matters more than one of this.

    The driver cancels on a line of its own, so that what was meant for the statement before can strike ROLLBACK.
    """
    for _ in range(_ROLLBACK_ATTEMPTS):
        with suppress(Exception):
            async with asyncio.timeout(_ROLLBACK_TIMEOUT_SECONDS):
                await connection.execute("ROLLBACK")
            return


class _Player:
    """One play."""

    def __init__(
        self, script: Script, connection: Playable, variables: Mapping[str, Stored], rng: Random, pause: Pause
    ) -> None:
        self._script = script
        self._connection = connection
        self._scope = Scope(variables, rng)
        self._pause = pause

    async def perform(self, commands: tuple[Command, ...]) -> None:
        """Perform commands in their order."""
        for command in commands:
            try:
                waiting = self._begin(command)
            except UsageError as error:
                raise self._located(command.line, error) from None
            if waiting is not None:
                await waiting

    def _begin(self, command: Command) -> Awaitable[object] | None:
        """Do what needs no waiting, and return what does."""
        if type(command) is Assignment:
            self._scope.set(command.name, command.expression.evaluate(self._scope))
            return None
        if type(command) is Statement:
            text = command.text(self._scope.texts)
            return self._connection.execute(text) if command.storing is None else self._store(command, text)
        if type(command) is Conditional:
            return self._choose(command)
        return self._pause(self._seconds(command)) if type(command) is Sleep else None

    async def _choose(self, conditional: Conditional) -> None:
        for branch in conditional.branches:
            try:
                is_chosen = branch.condition is None or truth(branch.condition.evaluate(self._scope))
            except UsageError as error:
                raise self._located(branch.line, error) from None
            if is_chosen:
                await self.perform(branch.commands)
                break

    def _seconds(self, sleep: Sleep) -> float:
        if isinstance(sleep.duration, int):
            return sleep.duration * sleep.unit_seconds
        if sleep.duration not in self._scope.values:
            raise unset(sleep.duration)
        value = self._scope.values[sleep.duration]
        seconds = whole(read(value) if isinstance(value, str) else value) * sleep.unit_seconds
        if 0 <= seconds <= MAXIMUM_SLEEP_SECONDS:
            return seconds
        raise UsageError(
            rf"\sleep is to last {seconds:.15g} s", f"Keep :{sleep.duration} from 0 to {MAXIMUM_SLEEP_SECONDS} s."
        )

    async def _store(self, command: Statement, text: str) -> None:
        rows = await self._connection.fetch(text)
        try:
            for name, value in _stored(rows, command.storing).items():
                self._scope.set(name, value)
        except UsageError as error:
            raise self._located(command.line, error) from None

    def _located(self, line: int, error: UsageError) -> UsageError:
        return UsageError(f"script {printable(self._script.name)}, line {line}: {error.what}", error.next_step)


def _stored(rows: Sequence[Any], storing: Storing | None) -> dict[str, Stored]:
    if storing is None or (not rows and not storing.needs_one_row):
        return {}
    if storing.needs_one_row and len(rows) != 1:
        raise UsageError(
            rf"\gset stands behind a query that returns {len(rows)} rows",
            r"Make it return exactly one, or use \aset.",
        )
    return {_name(storing.prefix + column): _text(column, value) for column, value in rows[-1].items()}


def _name(name: str) -> str:
    if _NAME.fullmatch(name):
        return name
    raise UsageError(
        f"'{printable(name)}' cannot be the name of a variable", "Name the column of the query: SELECT ... AS name."
    )


def _text(column: str, value: Any) -> Stored:
    """Return the text that the server would have sent, or an equal one; an integer may stay what it is.

    A NULL is an empty text, as in pgbench.
    """
    if value is None:
        return ""
    if type(value) is bool:
        return "t" if value else "f"
    if type(value) is float:
        return repr(value).removesuffix(".0") if math.isfinite(value) else shown(value)
    if isinstance(value, Decimal):
        return f"{value:f}"
    # asyncpg has no infinite dates: they come as the last and the first day of its calendar
    is_infinite = isinstance(value, date) and value.year in {date.min.year, date.max.year}
    if isinstance(value, _AS_WRITTEN) and not is_infinite:
        return value if type(value) is int else str(value)
    raise UsageError(
        f"the column {printable(column)} has a type or value that cannot be stored as text here",
        f"Cast it in the query: {printable(column)}::text.",
    )
