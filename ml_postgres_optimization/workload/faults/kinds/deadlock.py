"""A session that takes two accounts in the other order than the load's transactions do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import psycopg
from psycopg import Connection
from psycopg.rows import TupleRow

from ml_postgres_optimization.workload.faults.fault import FaultKind, check_count, check_seconds
from ml_postgres_optimization.workload.faults.ground import FaultGround, waiting_total
from ml_postgres_optimization.workload.faults.spell import Spell
from ml_postgres_optimization.workload.generator.admission import APPLICATION_NAME
from ml_postgres_optimization.workload.statements import query

_DOING = "deadlock with the load"
_LOOK_SECONDS = 0.005
# Of the accounts that the load uses most, one is waited for among the first and the other found among all of these.
_FIRST = 10
_ALL = 500


@dataclass(frozen=True, slots=True)
class Deadlock:
    """Deadlock with transactions of the load, which the server rolls back (40P01); nothing is changed.

    The load's transactions take their two accounts in ascending order, so that they never deadlock with each other. A
    partner holds an account that they use much, until one of them waits for it that has taken a lower one already,
    and then asks for that. Whoever waits first looks first whether there is a deadlock, so the transaction is the one
    that is rolled back, after ``deadlock_timeout``; where it was the partner, it does not count.

    Parameters
    ----------
    count : int
        How many deadlocks.
    seconds : float
        How long to try; the load must have operations of kind ``transaction``.
    """

    kind: ClassVar[FaultKind] = FaultKind.DEADLOCK
    count: int = 1
    seconds: float = 5.0

    def __post_init__(self) -> None:
        check_count("count", self.count)
        check_seconds("seconds", self.seconds)

    def check(self, ground: FaultGround) -> None:
        """Accept every ground."""

    def happen(self, ground: FaultGround, spell: Spell) -> int:
        """Do it; see `Fault`. Returns how many transactions of the load were rolled back."""
        with (
            ground.session(self.seconds, _DOING) as watcher,
            ground.session(self.seconds, _DOING) as partner,
        ):
            popular = ground.popular_accounts(watcher, _ALL)
            spell.begin()
            rolled_back = 0
            while rolled_back < self.count and not spell.is_over:
                # the highest of a few, so that most of the others are taken before it
                first = max(spell.draw.sample(popular[:_FIRST], k=min(3, len(popular))))
                lower = [account for account in popular if account < first]
                rolled_back += _deadlocked(watcher, partner, first, lower, spell)
            return rolled_back


def _deadlocked(
    watcher: Connection[TupleRow], partner: Connection[TupleRow], first: int, lower: list[int], spell: Spell
) -> bool:
    """Hold `first` until somebody waits for it, ask for what he holds, and tell whether he was rolled back.

    Where he holds nothing that is asked for, everything is let go at once.
    """
    with partner.transaction(force_rollback=True):
        partner.execute(query("faults/lock_row"), {"account_id": first})
        is_over = spell.wait(_LOOK_SECONDS)
        while not (is_over or waiting_total(watcher, partner)):
            is_over = spell.wait(_LOOK_SECONDS)
        sought = {"accounts": lower, "name": APPLICATION_NAME, "holder": partner.info.backend_pid}
        held = watcher.execute(query("faults/held_row"), sought).fetchone()
        if held is None or is_over:
            return False
        try:
            partner.execute(query("faults/lock_row"), {"account_id": held[0]})
        except (psycopg.errors.DeadlockDetected, psycopg.errors.LockNotAvailable):
            return False
        found = watcher.execute(query("faults/was_rolled_back"), {"xid": held[1]}).fetchone()
        return found is not None and bool(found[0])
