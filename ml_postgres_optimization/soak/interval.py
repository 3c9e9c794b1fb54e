"""One interval of a soak: what was measured in it, or why nothing was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from ml_postgres_optimization.telemetry import Window


class IntervalState(StrEnum):
    """Whether an interval was measured, and if not, whose fault that is."""

    MEASURED = "measured"
    DEGRADED = "degraded"
    """Measured, but doubtful or not whole: the host slept, a clock jumped, a client process died, or the runner was
    held up, and took it together with its neighbours."""
    SERVER_DOWN = "server down"
    """The runner was there and the server was not: it counts against the server."""
    CLIENT_DOWN = "client down"
    """There was no runner, so that nothing was asked of the server: it counts against nobody."""
    LOST = "lost"
    """The runner was killed before it had written what it had measured; never filled in."""


class EventKind(StrEnum):
    """What is marked on the time axis of a soak."""

    FAULT = "fault"
    CONFIGURATION = "configuration"
    CHECKPOINT = "checkpoint"
    REQUESTED_CHECKPOINT = "requested checkpoint"
    """One that did not wait for its time: the WAL was full, or somebody asked."""
    MEMORY = "memory"
    """The kernel killed for want of it."""
    PLAN = "plan"
    """The server would run a statement of the load otherwise than before."""
    RUNNER = "runner"
    SERVER = "server"
    CLOCK = "clock"
    DISK = "disk"
    INTEGRITY = "integrity"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened at a moment, or from one to another.

    Parameters
    ----------
    kind : EventKind
    text : str
        A sentence for readers, without a password.
    at : datetime
        Aware.
    until : datetime or None
        Where it lasted.
    """

    kind: EventKind
    text: str
    at: datetime
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Interval:
    """One interval of a soak; its number fixes its place, so that a gap is seen as one.

    Parameters
    ----------
    number : int
        From 0; interval n lies at n times the interval's length from the run's start.
    epoch : int
        The runner that wrote it: each that resumes the run has a higher one.
    state : IntervalState
    started_at, ended_at : datetime
        Aware.
    window : Window or None
        None where nothing was measured.
    resources : mapping of str to float
        What the runner and its client processes used, and once a minute the server's stock, in units of the name:
        ``client.rss_bytes``, ``runner.cores``, ``server.pss_bytes``, ``load_tables.dead_tuples``, …
    events : tuple of Event
    counted_in : int or None
        The interval in whose window its operations are, where its runner was held up and took several together.
    """

    number: int
    epoch: int
    state: IntervalState
    started_at: datetime
    ended_at: datetime
    window: Window | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    counted_in: int | None = None

    @property
    def seconds(self) -> float:
        """Length of the interval."""
        return (self.ended_at - self.started_at).total_seconds()
