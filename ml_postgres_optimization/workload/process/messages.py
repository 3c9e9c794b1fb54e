"""What the load generator and its client processes tell each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ml_postgres_optimization.telemetry import SampleBatch
from ml_postgres_optimization.workload.mix import Mix
from ml_postgres_optimization.workload.plan import LoadArm, LoadPlan


@dataclass(frozen=True, slots=True)
class Share:
    """One process's part of the load; sent anew whenever it changes.

    Parameters
    ----------
    connections : int
        0 for a process that has to pause.
    clients : int
        Users in flight, in the closed loop.
    rate_per_second : float or None
    mix : Mix
    arms : tuple of LoadArm
        Empty where the sessions are not divided.
    turn : int
        Whenever it grows, sessions are divided afresh, are SET what their arm says, and plan every statement anew.
    ceiling : int or None
        Operations at work at most; None where only the limiter and the connections bound them.
    """

    connections: int
    clients: int
    rate_per_second: float | None
    mix: Mix
    arms: tuple[LoadArm, ...] = ()
    turn: int = 0
    ceiling: int | None = None


@dataclass(frozen=True, slots=True)
class Position:
    """How far a schedule has come: the number of the interval, and of the operation in it that comes next."""

    interval: int = 0
    operation: int = 0


@dataclass(frozen=True, slots=True)
class Assignment:
    """The first message to a process: everything it needs to connect and to draw its operations.

    Parameters
    ----------
    worker : int
        Number of the process; part of the seed.
    connect : mapping of str to object
        Arguments for ``asyncpg.connect``; never shown, since a password may be among them.
    plan : LoadPlan
    share : Share
    account_count, key_count : int
        Accounts in the tables, and how many of them are used.
    zipf_exponent : float
        Skew of the keys.
    """

    worker: int
    connect: Mapping[str, Any] = field(repr=False)
    plan: LoadPlan
    share: Share
    account_count: int
    key_count: int
    zipf_exponent: float


@dataclass(frozen=True, slots=True)
class Start:
    """The second message: begin. It comes again where the machine has slept, and the schedule went on.

    Parameters
    ----------
    schedule_start_seconds : float
        Monotonic time that all processes count from.
    position : Position or None
        Where the process that died had come to, for one that takes its place; what came due since then counts as
        skipped; or where the schedule is after a sleep. None at the beginning.
    """

    schedule_start_seconds: float
    position: Position | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """The last message: end within `drain_seconds`, report, and exit."""

    drain_seconds: float


@dataclass(frozen=True, slots=True)
class Ready:
    """From a process: it has its connections."""


@dataclass(frozen=True, slots=True)
class Report:
    """From a process, several times a second: what happened since the last report, and how it stands.

    Parameters
    ----------
    batches : tuple of SampleBatch
        One for each arm that something happened in, with what came due for it; at least one.
    connections_lost_total : int
        Connections that broke since the last report.
    connection_failures : mapping of str to int
        Attempts to connect that failed, by SQLSTATE; since the last report.
    position : Position or None
        None before it has begun.
    concurrency_limit : int or None
        How many operations at once were found to be best; None where nobody looks.
    at_seconds, cpu_seconds : float
        Monotonic time of the report, CPU time of the process so far.
    garbage_seconds : float
        That its collector of garbage has taken since the last report.
    is_last : bool
    """

    batches: tuple[SampleBatch, ...]
    connections_lost_total: int
    connection_failures: Mapping[str, int]
    position: Position | None
    at_seconds: float
    cpu_seconds: float
    garbage_seconds: float = 0.0
    concurrency_limit: int | None = None
    is_last: bool = False

    @property
    def due_total(self) -> int:
        """Operations that came due, in all arms."""
        return sum(batch.due_total or 0 for batch in self.batches)

    @property
    def skipped_total(self) -> int:
        """Operations that were due and will not be started."""
        return sum(batch.skipped_total for batch in self.batches)

    @property
    def ended_total(self) -> int:
        """Operations that succeeded or failed."""
        return sum(len(batch) for batch in self.batches)


@dataclass(frozen=True, slots=True)
class Failure:
    """From a process that cannot go on: one line that says why."""

    reason: str
    sqlstate: str = ""


def parts_of(ceiling: int | None, count: int) -> list[int | None]:
    """Split a ceiling as evenly as it goes, with one for each at least; None is none for all.

    Examples
    --------
    >>> parts_of(5, 2), parts_of(1, 2), parts_of(None, 2)
    ([3, 2], [1, 1], [None, None])
    """
    if ceiling is None:
        return [None] * count
    whole, rest = divmod(ceiling, count)
    return [max(1, whole + (place < rest)) for place in range(count)]
