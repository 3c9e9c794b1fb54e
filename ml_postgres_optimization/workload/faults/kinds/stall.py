"""Locks that are held too long."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

from psycopg import Connection
from psycopg.rows import TupleRow

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.workload.faults.fault import FaultKind, check_seconds
from ml_postgres_optimization.workload.faults.ground import FaultGround, waiting_total
from ml_postgres_optimization.workload.faults.spell import Spell
from ml_postgres_optimization.workload.statements import query

_DOING = "lock accounts"
_LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class LockStall:
    """Hold a lock against the load; nothing is changed.

    Its operations wait, and fail where the plan's ``session_settings`` let them wait less: 55P03 by ``lock_timeout``,
    57014 by ``statement_timeout``.

    Parameters
    ----------
    seconds : float
    account_id : int or None
        The account that nobody can update; None for the one that the load uses most.
    is_whole_table : bool
        Lock all accounts, against readers too.
    """

    kind: ClassVar[FaultKind] = FaultKind.LOCK_STALL
    seconds: float = 1.0
    account_id: int | None = None
    is_whole_table: bool = False

    def __post_init__(self) -> None:
        check_seconds("seconds", self.seconds)

    def check(self, ground: FaultGround) -> None:
        """Accept every ground."""

    def happen(self, ground: FaultGround, spell: Spell) -> int:
        """Hold it; see `Fault`. Returns how many sessions were seen to wait at once.

        Raises
        ------
        UsageError
            If there is no such account.
        """
        with (
            ground.session(self.seconds, _DOING) as watcher,
            ground.session(self.seconds, _DOING) as holder,
            holder.transaction(force_rollback=True),
        ):
            self._lock(ground, holder)
            spell.begin()
            most = 0
            while not spell.wait(_LOOK_SECONDS):
                most = max(most, waiting_total(watcher, holder))
            return max(most, waiting_total(watcher, holder))

    def _lock(self, ground: FaultGround, holder: Connection[TupleRow]) -> None:
        if self.is_whole_table:
            holder.execute(query("faults/lock_table"))
            return
        account_id = self.account_id
        if account_id is None:
            account_id = ground.popular_accounts(holder, 1)[0]
        if holder.execute(query("faults/lock_row"), {"account_id": account_id}).fetchone() is None:
            raise UsageError(f"There is no account {account_id}.", "Accounts count from 1.")


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
        If there is no such account, the time makes no sense, or the server is not on this machine.
    ServerUnreachable, AuthenticationFailed, PrivilegeMissing, TargetError
    """
    return _held(dsn, LockStall(seconds, account_id))


def hold_table_lock(dsn: str, seconds: float) -> Stall:
    """Lock the accounts against everybody, readers too, for `seconds`, then let go; raises as `hold_row_lock`."""
    return _held(dsn, LockStall(seconds, is_whole_table=True))


def _held(dsn: str, fault: LockStall) -> Stall:
    spell = Spell(fault.seconds)
    fault.happen(FaultGround(dsn), spell)
    ended_seconds = time.monotonic()
    return Stall(spell.began_seconds or ended_seconds, ended_seconds)
