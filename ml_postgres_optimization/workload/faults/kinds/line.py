"""Trouble on the line between the load and the server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.workload.faults.fault import FaultKind, check_count, check_ratio, check_seconds
from ml_postgres_optimization.workload.faults.ground import FaultGround
from ml_postgres_optimization.workload.faults.line import LONGEST_DELAY_SECONDS, CommitCut
from ml_postgres_optimization.workload.faults.spell import Spell

_LOOK_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class LineCut:
    """End every connection of the line, and let no new one through.

    Parameters
    ----------
    seconds : float
    """

    kind: ClassVar[FaultKind] = FaultKind.LINE_CUT
    seconds: float = 1.0

    def __post_init__(self) -> None:
        check_seconds("seconds", self.seconds)

    def check(self, ground: FaultGround) -> None:
        """Refuse a ground without a line."""
        _ = ground.own_line

    def happen(self, ground: FaultGround, spell: Spell) -> int:
        """Do it; see `Fault`. Returns how many connections were ended."""
        line = ground.own_line
        try:
            reached = line.cut()
            spell.begin()
            spell.wait()
        finally:
            line.let_through()
        return reached


@dataclass(frozen=True, slots=True)
class LineSilence:
    """Carry nothing, and tell nobody; what was held back comes afterwards.

    Parameters
    ----------
    seconds : float
    """

    kind: ClassVar[FaultKind] = FaultKind.LINE_SILENCE
    seconds: float = 1.0

    def __post_init__(self) -> None:
        check_seconds("seconds", self.seconds)

    def check(self, ground: FaultGround) -> None:
        """Refuse a ground without a line."""
        _ = ground.own_line

    def happen(self, ground: FaultGround, spell: Spell) -> int:
        """Do it; see `Fault`. Returns how many connections there were at the end."""
        line = ground.own_line
        try:
            line.fall_silent()
            spell.begin()
            spell.wait()
            return line.connections
        finally:
            line.flow()


@dataclass(frozen=True, slots=True)
class LineDelay:
    """Hold back everything that the line carries, each way.

    Parameters
    ----------
    delay_seconds : float
        For how long each piece.
    seconds : float
    """

    kind: ClassVar[FaultKind] = FaultKind.LINE_DELAY
    delay_seconds: float = 0.05
    seconds: float = 1.0

    def __post_init__(self) -> None:
        check_seconds("seconds", self.seconds)
        if not 0.0 <= self.delay_seconds <= LONGEST_DELAY_SECONDS:
            raise UsageError(
                f"delay_seconds of a fault is {self.delay_seconds!r}.",
                f"Choose from 0 to {LONGEST_DELAY_SECONDS:g} s.",
            )

    def check(self, ground: FaultGround) -> None:
        """Refuse a ground without a line."""
        _ = ground.own_line

    def happen(self, ground: FaultGround, spell: Spell) -> int:
        """Do it; see `Fault`. Returns how many connections there were at the end."""
        line = ground.own_line
        try:
            line.delay(self.delay_seconds)
            spell.begin()
            spell.wait()
            return line.connections
        finally:
            line.delay(0.0)


@dataclass(frozen=True, slots=True)
class LostCommits:
    """Cut connections around their COMMITs: nobody knows by the reply what became of the transaction.

    Parameters
    ----------
    ways : tuple of CommitCut
        One is drawn for each.
    ratio : float
        Of the COMMITs, 0 to 1.
    count : int
        How many at most.
    seconds : float
    """

    kind: ClassVar[FaultKind] = FaultKind.LOST_COMMITS
    ways: tuple[CommitCut, ...] = (CommitCut.FORWARDED, CommitCut.ANSWERED)
    ratio: float = 1.0
    count: int = 1
    seconds: float = 1.0

    def __post_init__(self) -> None:
        if not self.ways or not all(way in tuple(CommitCut) for way in self.ways):
            raise UsageError(f"COMMITs cannot be cut by {self.ways!r}.", f"Choose from {', '.join(CommitCut)}.")
        check_ratio("ratio", self.ratio)
        check_count("count", self.count)
        check_seconds("seconds", self.seconds)

    def check(self, ground: FaultGround) -> None:
        """Refuse a ground without a line."""
        _ = ground.own_line

    def happen(self, ground: FaultGround, spell: Spell) -> int:
        """Do it; see `Fault`. Returns how many connections were cut."""
        line = ground.own_line
        before = sum(line.cuts.values())
        with line.cutting_commits(self.ratio, *self.ways, most=self.count):
            spell.begin()
            while sum(line.cuts.values()) - before < self.count:
                if spell.wait(_LOOK_SECONDS):
                    break
        return sum(line.cuts.values()) - before
