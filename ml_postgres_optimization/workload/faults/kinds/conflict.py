"""A session that writes what the load is about to write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from psycopg import Connection
from psycopg.rows import TupleRow

from ml_postgres_optimization.workload.faults.fault import FaultKind, check_count, check_seconds
from ml_postgres_optimization.workload.faults.ground import FaultGround, waiting_total
from ml_postgres_optimization.workload.faults.spell import Spell
from ml_postgres_optimization.workload.statements import query

_DOING = "conflict with the load"
_LOOK_SECONDS = 0.005
_FIRST = 5


@dataclass(frozen=True, slots=True)
class SerialisationConflict:
    """Write accounts while the load waits to write them: 40001, where its transactions see a snapshot.

    The load must run under ``repeatable read`` or ``serializable``: ``default_transaction_isolation`` in the plan's
    ``session_settings``. Under ``read committed`` it waits for a moment, and goes on. A row gets new versions, and no
    value changes.

    Parameters
    ----------
    count : int
        Conflicts, each with everybody who waits for the same account just then.
    seconds : float
        How long to wait for somebody to conflict with.
    """

    kind: ClassVar[FaultKind] = FaultKind.SERIALISATION
    count: int = 1
    seconds: float = 2.0

    def __post_init__(self) -> None:
        check_count("count", self.count)
        check_seconds("seconds", self.seconds)

    def check(self, ground: FaultGround) -> None:
        """Accept every ground."""

    def happen(self, ground: FaultGround, spell: Spell) -> int:
        """Do it; see `Fault`. Returns how many sessions waited."""
        with (
            ground.session(self.seconds, _DOING) as watcher,
            ground.session(self.seconds, _DOING) as rival,
        ):
            popular = ground.popular_accounts(watcher, _FIRST)
            spell.begin()
            reached = 0
            for _ in range(self.count):
                if spell.is_over:
                    break
                reached += _written_before(watcher, rival, spell.draw.choice(popular), spell)
            return reached


def _written_before(watcher: Connection[TupleRow], rival: Connection[TupleRow], account_id: int, spell: Spell) -> int:
    """Write an account, commit as soon as somebody waits for it, and return how many do."""
    with rival.transaction():
        rival.execute(query("faults/touch_row"), {"account_id": account_id})
        while not (waiting := waiting_total(watcher, rival)):
            if spell.wait(_LOOK_SECONDS):
                break
    return waiting
