"""Backends of the load that an administrator ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ml_postgres_optimization.workload.faults.fault import FaultKind, check_count, check_seconds
from ml_postgres_optimization.workload.faults.ground import FaultGround, terminate_load
from ml_postgres_optimization.workload.faults.spell import Spell

_LOOK_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class Termination:
    """End sessions of the load with ``pg_terminate_backend``: 57P01 for the operation that is under way.

    Parameters
    ----------
    count : int
        How many, each once.
    seconds : float
        How long to look for sessions that are at work. Then those that are not are ended too, which no operation
        notices: their clients reconnect.
    """

    kind: ClassVar[FaultKind] = FaultKind.TERMINATION
    count: int = 1
    seconds: float = 1.0

    def __post_init__(self) -> None:
        check_count("count", self.count)
        check_seconds("seconds", self.seconds)

    def check(self, ground: FaultGround) -> None:
        """Accept every ground."""

    def happen(self, ground: FaultGround, spell: Spell) -> int:
        """End them; see `Fault`."""
        ended: tuple[int, ...] = ()
        with ground.session(self.seconds, "end sessions of the load") as connection:
            spell.begin()
            while len(ended) < self.count:
                is_last = spell.is_over
                if spell.was_cut_short:
                    break
                ended += terminate_load(connection, self.count - len(ended), but=ended, idle_too=is_last)
                if is_last:
                    break
                spell.wait(_LOOK_SECONDS)
        return len(ended)
