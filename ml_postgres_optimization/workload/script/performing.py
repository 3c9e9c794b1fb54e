"""What performs a script on a connection, as operations of the load are performed."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import asyncpg  # type: ignore[import-untyped]

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.workload.script.mix import ScriptMix
from ml_postgres_optimization.workload.script.playing import Playable, play

_KEY_BITS = 31


class ScriptStopped(asyncpg.InterfaceError):  # type: ignore[misc]
    """A script cannot go on by its own fault: a division by zero in an expression, a result that is not one row."""

    sqlstate = "22000"
    """Data exception: https://www.postgresql.org/docs/current/errcodes-appendix.html"""


def script_performer(
    mix: ScriptMix, kind_index: int, connection: Playable, session_number: int
) -> Callable[[int, int, int], Awaitable[object]]:
    """Return what plays the script at a position of `mix`, and raises `ScriptStopped` where it cannot go on.

    Its random numbers hang on the operation alone, so that the same one can be played again.

    Parameters
    ----------
    mix : ScriptMix
    kind_index : int
    connection : Playable
    session_number : int
        What it knows as ``:client_id``.
    """
    script = mix.scripts[kind_index]
    variables = {**mix.variables, "client_id": session_number}

    async def perform(key: int, other_key: int, _amount: int) -> None:
        try:
            await play(script, connection, rng=random.Random((key << _KEY_BITS) ^ other_key), variables=variables)
        except UsageError as error:
            raise ScriptStopped(str(error)) from error

    return perform
