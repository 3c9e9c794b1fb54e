"""What a fault is: the one protocol of all kinds."""

from __future__ import annotations

import math
from enum import StrEnum
from numbers import Real
from typing import ClassVar, Protocol

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.workload.faults.ground import FaultGround
from ml_postgres_optimization.workload.faults.spell import Spell

LONGEST_SECONDS = 3_600.0
_MOST = 10_000


class FaultKind(StrEnum):
    """Every kind of fault, by the name that records call it."""

    TERMINATION = "termination"
    EXHAUSTION = "exhaustion"
    LOCK_STALL = "lock_stall"
    DEADLOCK = "deadlock"
    SERIALISATION = "serialisation"
    RESTART = "restart"
    CRASH = "crash"
    STANDBY = "standby"
    READ_ONLY = "read_only"
    LINE_CUT = "line_cut"
    LINE_SILENCE = "line_silence"
    LINE_DELAY = "line_delay"
    LOST_COMMITS = "lost_commits"

    @property
    def is_of_the_server(self) -> bool:
        """Whether it strikes the server itself: no two such faults at a time, since each puts it back by itself."""
        return self in {FaultKind.RESTART, FaultKind.CRASH, FaultKind.READ_ONLY}


class Fault(Protocol):
    """Something that goes wrong, described before it happens: a frozen value, bounded in count and in time."""

    kind: ClassVar[FaultKind]

    @property
    def seconds(self) -> float:
        """How long it lasts at most, once it is in force."""

    def check(self, ground: FaultGround) -> None:
        """Refuse a ground that lacks what the fault needs; nothing is connected for that.

        Raises
        ------
        UsageError
        """

    def happen(self, ground: FaultGround, spell: Spell) -> int:
        """Do it, from `Spell.begin` until `spell` is over, and put everything back before returning or raising.

        Returns
        -------
        int
            How many sessions, connections or servers it reached. What became of their operations, the load's own
            samples say.

        Raises
        ------
        GenesisError, psycopg.Error
            If it cannot be done, or was lost on the way.
        """


def check_seconds(name: str, seconds: object, *, least: float = 0.0) -> None:
    """Refuse what is no time of a fault.

    Raises
    ------
    UsageError
    """
    is_number = isinstance(seconds, Real) and math.isfinite(seconds)
    if not (is_number and least <= float(seconds) <= LONGEST_SECONDS):  # type: ignore[arg-type]
        raise UsageError(f"{name} of a fault is {seconds!r}.", f"Choose from {least:g} to {LONGEST_SECONDS:g} s.")


def check_count(name: str, count: object, *, least: int = 1) -> None:
    """Refuse what is no count; raises as `check_seconds`."""
    if not isinstance(count, int) or isinstance(count, bool) or not least <= count <= _MOST:
        raise UsageError(f"{name} of a fault is {count!r}.", f"Choose a whole number from {least} to {_MOST:,}.")


def check_ratio(name: str, ratio: object) -> None:
    """Refuse what is no share; raises as `check_seconds`."""
    if not (isinstance(ratio, Real) and 0.0 <= float(ratio) <= 1.0):
        raise UsageError(f"{name} of a fault is {ratio!r}.", "Choose from 0 to 1.")
