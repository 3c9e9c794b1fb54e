"""Play every script once, so that what is wrong with one is known before anything is measured."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import asyncpg  # type: ignore[import-untyped]

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.workload.generator.admission import Admission, admit
from ml_postgres_optimization.workload.plan import LoadPlan
from ml_postgres_optimization.workload.process.session import Session, preparer, session_defaults
from ml_postgres_optimization.workload.script import ScriptMix, ScriptStopped

_QUERY_CANCELLED = "57014"


def first_run(dsn: str, mix: ScriptMix, *, seed: int = 0) -> Mapping[str, float]:
    """Play each script of `mix` once, one after the other, and return how many seconds each took.

    What it does to the tables stays done, as in every later run.

    Parameters
    ----------
    dsn : str
    mix : ScriptMix
        Its session settings bound how long a statement may take.
    seed : int

    Raises
    ------
    UsageError
        If the server refuses a statement of a script, or one takes too long; it names the script.
    ServerUnreachable, AuthenticationFailed, TargetError
    """
    return asyncio.run(_played(admit(dsn, LoadPlan(mix, connections=1, clients=1, seed=seed)), mix, seed))


async def _played(admission: Admission, mix: ScriptMix, seed: int) -> Mapping[str, float]:
    prepare = preparer(mix, account_count=admission.account_count, session_number=0)
    session = await Session.open(admission.connect, prepare, mix.shares, beginning=session_defaults(mix), settings={})
    try:
        return {name: await _timed(session, index, name, seed) for index, name in enumerate(mix.names)}
    finally:
        await session.close()


async def _timed(session: Session, kind_index: int, name: str, seed: int) -> float:
    performer = session.performers[kind_index] or await session.prepare(kind_index)
    begun = time.monotonic()
    try:
        await performer(seed + 1, kind_index + 1, 1)
    except ScriptStopped as stopped:
        raise stopped.__cause__ or stopped from None
    except asyncpg.PostgresError as error:
        raise _refused(name, error, time.monotonic() - begun) from error
    return time.monotonic() - begun


def _refused(name: str, error: Any, seconds: float) -> UsageError:
    said = " ".join(str(error).split())
    if error.sqlstate == _QUERY_CANCELLED:
        return UsageError(
            f"Script {name} was stopped after {seconds:.0f} s: {said}.",
            "Make its statements faster, or allow them more: --query-timeout SECONDS.",
        )
    hint = f" {error.hint}" if error.hint else ""
    return UsageError(
        f"The server refuses script {name}: {said} (SQLSTATE {error.sqlstate}).",
        f"Mend the script, or make what it needs first.{hint}",
    )
