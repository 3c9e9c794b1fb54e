"""Where a trial takes place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

from ml_postgres_optimization.knobs.configuration import CONCURRENCY, Change, Configuration
from ml_postgres_optimization.safety.guard import GuardedChange
from ml_postgres_optimization.telemetry import Clock, Recorder, Window
from ml_postgres_optimization.workload import LoadCounters

# In flight or waiting: a pool of a hundred that is not behind has no more.
_QUEUE_OF_A_HEALTHY_LOAD = 100
_LONGEST_DRAIN_SECONDS = 30.0
# The load generator reports every 0.2 s.
_DRAIN_LOOK_SECONDS = 0.5


class Arena(Protocol):
    """Something that runs under one configuration at a time, and can be measured."""

    def switch(self, configuration: Configuration) -> None:
        """Put `configuration` in force; nothing happens if it is already."""

    def settle(self, seconds: float) -> None:
        """Let `seconds` pass, or more, until what the configuration before has left behind is gone."""

    def measure(self, seconds: float, *, labels: Mapping[str, str]) -> Window:
        """Observe for `seconds` from now on, and return what happened."""


class Load(Protocol):
    """Load of our own, as far as a trial needs it."""

    @property
    def counters(self) -> LoadCounters:
        """What it has done so far."""

    def set_connections(self, connections: int) -> None:
        """Let so many operations run at once from now on."""


def drain(load: Load, clock: Clock) -> None:
    """Wait until operations that came due under another configuration are done, as long as they get fewer.

    What an overloaded arm leaves in the queue would otherwise be counted against the other: seen in our own
    measurement, where a baseline of 7 ms showed 1,100 ms behind a candidate that could not keep up.
    """
    end_seconds = clock.monotonic_seconds() + _LONGEST_DRAIN_SECONDS
    waiting, before = _waiting(load), math.inf
    while _QUEUE_OF_A_HEALTHY_LOAD < waiting < before and clock.monotonic_seconds() < end_seconds:
        clock.sleep(_DRAIN_LOOK_SECONDS)
        waiting, before = _waiting(load), waiting


def _waiting(load: Load) -> int:
    counters = load.counters
    return counters.due_total - counters.succeeded_total - counters.failed_total - counters.skipped_total


class ServerArena:
    """A live server: its settings change through the guard, our own concurrency at the load generator.

    Parameters
    ----------
    change : Change
        From the baseline, in force now, to the candidate.
    guarded : GuardedChange
        Of that same change, and entered.
    recorder : Recorder
    clock : Clock
    load : Load, optional
        None where the sessions are not ours.
    """

    def __init__(
        self,
        change: Change,
        guarded: GuardedChange,
        recorder: Recorder,
        *,
        clock: Clock,
        load: Load | None = None,
    ) -> None:
        self._change = change
        self._guarded = guarded
        self._recorder = recorder
        self._clock = clock
        self._load = load
        self._in_force = change.before

    def switch(self, configuration: Configuration) -> None:
        """Put the baseline or the candidate in force.

        Raises
        ------
        ValueError
            If `configuration` is neither.
        ChangeRefused, TargetError
            As `GuardedChange.apply` and `withdraw` do.
        """
        if configuration not in (self._change.before, self._change.after):
            raise ValueError(f"configuration {configuration.id} is neither the baseline nor the candidate")
        if configuration == self._in_force:
            return
        if configuration == self._change.after:
            self._guarded.apply()
        else:
            self._guarded.withdraw()
        if self._load and CONCURRENCY in configuration:
            self._load.set_connections(int(configuration[CONCURRENCY]))
        self._in_force = configuration

    def settle(self, seconds: float) -> None:
        """Let `seconds` pass, and what is still queued from before drain."""
        self._clock.sleep(seconds)
        if self._load:
            drain(self._load, self._clock)

    def measure(self, seconds: float, *, labels: Mapping[str, str]) -> Window:
        """Record one window; what happened since the last one belongs to neither.

        Operations that are in flight at its end have not ended in it, so it does not see how long they take; a stall
        is in it as far as its operations end in it.
        """
        self._recorder.discard()
        return self._recorder.record(seconds, configuration_id=self._in_force.id, labels=labels)
