"""What the records of a run add up to: all that another runner needs to go on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from ml_postgres_optimization.soak.interval import Interval
from ml_postgres_optimization.telemetry import Window, merge

# Windows of several configurations, put together for the run's totals.
SEVERAL_CONFIGURATIONS = "several"


class Ending(StrEnum):
    """How a runner left a run."""

    STOPPED = "stopped"
    """It can go on."""
    FINISHED = "finished"
    ABANDONED = "abandoned"
    VIOLATED = "violated"
    """The ledger of operations does not balance; the evidence is kept."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What the load has done, counted from the beginning of the run, but for the last three.

    Parameters
    ----------
    due_total, succeeded_total, failed_total, skipped_total, ambiguous_total : int
        Operations; ambiguous ones are among the failed.
    written_total, unclear_total : int
        Of this epoch: operations that write and were acknowledged, and those that may have been committed all the
        same. Between the first and the sum of both lies what the ledger in the database must say.
    is_whole : bool
        Of this epoch: whether all that the load did is in these counts, so that the sum is the most that the ledger
        may say. It is not where a client process died, since what it had not reported is in none.
    """

    due_total: int = 0
    succeeded_total: int = 0
    failed_total: int = 0
    skipped_total: int = 0
    ambiguous_total: int = 0
    written_total: int = 0
    unclear_total: int = 0
    is_whole: bool = True

    @property
    def unclear_at_most(self) -> int | None:
        """How many operations beyond the acknowledged ones the ledger may hold; None where nobody knows."""
        return self.unclear_total if self.is_whole else None

    def after(self, window: Window, written_total: int) -> Totals:
        """Return them with a window's operations, of which so many wrote and were acknowledged."""
        return Totals(
            self.due_total + window.due_total,
            self.succeeded_total + window.operations_total - window.failed_total,
            self.failed_total + window.failed_total,
            self.skipped_total + window.skipped_total,
            self.ambiguous_total + window.ambiguous_total,
            self.written_total + written_total,
            self.unclear_total + window.ambiguous_total,
            self.is_whole,
        )

    def of_next_epoch(self) -> Totals:
        """Return them as another runner begins with them."""
        return replace(self, written_total=0, unclear_total=0, is_whole=True)


@dataclass(frozen=True, slots=True)
class ClockMark:
    """Where the clocks stood.

    Parameters
    ----------
    boot : str
        Of the machine, by which a reboot is known; empty where it has no name.
    boottime_seconds : float
        Since that boot, sleep included.
    elapsed_seconds : float
        Of the run.
    offset_seconds : float
        By how much the wall clock has been stepped since the run began.
    """

    boot: str = ""
    boottime_seconds: float = 0.0
    elapsed_seconds: float = 0.0
    offset_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class RunState:
    """How far a run has come.

    Parameters
    ----------
    epoch : int
        Of the last runner; 0 before the first.
    last_number : int
        Of the last interval that was written; -1 before the first.
    ending : Ending or None
        None while a runner is at it, or where one was killed.
    last_at : datetime or None
        When the last record was written.
    totals : Totals
    mark : ClockMark
    windows_total, server_down_total, died_total : int
        Intervals with a window of a server that was there, those in which it was away, and client processes that
        died.
    client_cpu_ratio : float
        The largest share of a core that a client process used in an interval.
    whole : Window or None
        All windows merged.
    is_settled : bool or None
        Whether the last runner found the ledger to balance after its load; None where it did not say.
    began_number : int
        Of the interval that the last runner began in; -1 where it did not say.
    lost_until : int
        Last interval that it had in memory only, or was in, where it said so beside the journal; -1 where it did not.
    """

    epoch: int = 0
    last_number: int = -1
    ending: Ending | None = None
    last_at: datetime | None = None
    totals: Totals = field(default_factory=Totals)
    mark: ClockMark = field(default_factory=ClockMark)
    windows_total: int = 0
    server_down_total: int = 0
    died_total: int = 0
    client_cpu_ratio: float = 0.0
    whole: Window | None = None
    is_settled: bool | None = None
    began_number: int = -1
    lost_until: int = -1

    @property
    def taken_until(self) -> int:
        """The last interval that a runner was in: one that was killed had begun the one after its last record."""
        if not self.epoch or self.ending is not None:
            return self.last_number
        return max(self.last_number + 1, self.began_number, self.lost_until)

    def began(self, epoch: int, at: datetime, number: int = -1) -> RunState:
        """Return it after another runner has taken over: what the ledger must say counts from now."""
        begun = replace(self, epoch=epoch, ending=None, last_at=at, is_settled=None)
        return replace(begun, totals=self.totals.of_next_epoch(), began_number=number, lost_until=-1)

    def after(self, interval: Interval, totals: Totals, mark: ClockMark) -> RunState:
        """Return it after one more interval."""
        window = interval.window
        merged = self.whole
        if window is not None:
            each = replace(window, configuration_id=SEVERAL_CONFIGURATIONS, statements={})
            merged = merge(self.whole, each) if self.whole else each
        was_down = interval.state.value == "server down"
        return replace(
            self,
            last_number=interval.number,
            last_at=interval.ended_at,
            totals=totals,
            mark=mark,
            windows_total=self.windows_total + (window is not None and not was_down),
            server_down_total=self.server_down_total + was_down,
            died_total=max(self.died_total, int(interval.resources.get("client.died_total", 0))),
            client_cpu_ratio=max(self.client_cpu_ratio, interval.resources.get("client.cpu_ratio", 0.0)),
            whole=merged,
        )

    def left(self, ending: Ending, at: datetime, *, is_settled: bool | None = None) -> RunState:
        """Return it after the runner has left."""
        return replace(self, ending=ending, last_at=at, is_settled=is_settled)

    def to_json(self) -> dict[str, Any]:
        """Return it without the merged window."""
        return {
            one.name: getattr(self, one.name)
            for one in fields(self)
            if one.name not in {"whole", "totals", "mark", "last_at"}
        } | {
            "totals": asdict(self.totals),
            "mark": asdict(self.mark),
            "last_at": self.last_at and self.last_at.isoformat(),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any], whole: Window | None) -> RunState:
        """Rebuild what `to_json` gave; raises ValueError, KeyError or TypeError where it is none."""
        told = dict(content)
        ending, last_at = told.pop("ending"), told.pop("last_at")
        return cls(
            totals=Totals(**told.pop("totals")),
            mark=ClockMark(**told.pop("mark")),
            ending=None if ending is None else Ending(ending),
            last_at=None if last_at is None else datetime.fromisoformat(last_at),
            whole=whole,
            **told,
        )
