"""Faults for tests and benchmarks; only ever on a server of our own."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings, connect, translated
from ml_postgres_optimization.workload.statements import query

_LONGEST_SECONDS = 3_600.0


@dataclass(frozen=True, slots=True)
class Stall:
    """When a lock was held, in monotonic seconds.

    Parameters
    ----------
    began_seconds : float
        Just after the lock was granted.
    ended_seconds : float
        Just after it was given up.
    """

    began_seconds: float
    ended_seconds: float


def hold_row_lock(dsn: str, account_id: int, seconds: float) -> Stall:
    """Lock one account against every update for `seconds`, then let go; nothing is changed.

    Raises
    ------
    UsageError
        If there is no such account, or the time makes no sense.
    ServerUnreachable, AuthenticationFailed, PrivilegeMissing, TargetError
    """
    return _hold(dsn, "faults/lock_row", {"account_id": account_id}, seconds)


def hold_table_lock(dsn: str, seconds: float) -> Stall:
    """Lock the accounts against everybody, readers too, for `seconds`, then let go; raises as `hold_row_lock`."""
    return _hold(dsn, "faults/lock_table", {}, seconds)


def _hold(dsn: str, statement: str, parameters: Mapping[str, int], seconds: float) -> Stall:
    if not 0 <= seconds <= _LONGEST_SECONDS:
        raise UsageError(f"A lock cannot be held for {seconds} s.", f"Choose from 0 to {_LONGEST_SECONDS:g} s.")
    settings = ConnectionSettings.from_dsn(dsn)
    with (
        connect(settings, purpose="fault", statement_timeout_seconds=0, lock_timeout_seconds=0) as connection,
        translated(settings, "lock accounts"),
    ):
        with connection.transaction(force_rollback=True):
            cursor = connection.execute(query(statement), parameters or None)
            if parameters and cursor.fetchone() is None:
                raise UsageError(f"There is no account {parameters['account_id']}.", "Accounts count from 1.")
            began = time.monotonic()
            time.sleep(seconds)
        return Stall(began, time.monotonic())
