"""A live server as the place of a trial."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from ml_postgres_optimization.knobs.configuration import CONCURRENCY, Change, Configuration
from ml_postgres_optimization.safety.guarded_change import GuardedChange
from ml_postgres_optimization.telemetry import Clock, Recorder, Window
from ml_postgres_optimization.trials.layout.memory_watch import MemoryWatch
from ml_postgres_optimization.trials.proposal import Arm
from ml_postgres_optimization.workload import LoadArm, LoadCounters

# In flight or waiting: a pool of a hundred that is not behind has no more.
_QUEUE_OF_A_HEALTHY_LOAD = 100
_LONGEST_DRAIN_SECONDS = 30.0
# The load generator reports every 0.2 s.
_DRAIN_LOOK_SECONDS = 0.5
# An order reaches every process, and what is quick is done.
_LEAVE_SECONDS = 0.5
_LOOK_SECONDS = 1.0
# There and back again: a restart begins with the checkpoint of a shutdown.
_RESTARTS_SECONDS = 60.0


class Load(Protocol):
    """Load of our own, as far as a trial needs it."""

    @property
    def counters(self) -> LoadCounters:
        """What it has done so far."""

    def set_connections(self, connections: int) -> None:
        """Let so many operations run at once from now on."""

    def hold_below(self, ceiling: int | None) -> None:
        """Let no more run at once for a while, on the same connections; None lifts it."""

    def pause(self) -> None:
        """Offer nothing, and leave the server, until `resume`."""

    def resume(self) -> None:
        """Come back, and offer what was offered before."""

    def can_divide(self, settings: Mapping[str, str]) -> bool:
        """Tell whether its sessions can be divided over arms, and may SET these."""

    def divide(self, arms: Sequence[LoadArm]) -> None:
        """Give each arm a part of the sessions and of the operations; without arms, put them together again."""

    def replan(self) -> None:
        """Have every session plan its statements anew."""


def _unwatched() -> None:
    """Look at nothing."""


def drain(load: Load, clock: Clock, *, look: Callable[[], None] = _unwatched) -> None:
    """Wait until operations that came due under another configuration are done, as long as they get fewer.

    What an overloaded arm leaves in the queue would otherwise be counted against the other: seen in our own
    measurement, where a baseline of 7 ms showed 1,100 ms behind a candidate that could not keep up.
    """
    end_seconds = clock.monotonic_seconds() + _LONGEST_DRAIN_SECONDS
    waiting, before = _waiting(load), math.inf
    while _QUEUE_OF_A_HEALTHY_LOAD < waiting < before and clock.monotonic_seconds() < end_seconds:
        clock.sleep(_DRAIN_LOOK_SECONDS)
        look()
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
    memory : MemoryWatch
        Looks while time passes, and may end the trial (`MemoryRunsOut`).
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
        memory: MemoryWatch,
        load: Load | None = None,
    ) -> None:
        self._change = change
        self._guarded = guarded
        self._recorder = recorder
        self._clock = clock
        self._memory = memory
        self._load = load
        self._in_force = change.before
        self._arms: dict[Arm, str] = {}

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
        # first, so that no session keeps an arm's settings where the rest fails
        if self._load and self._arms:
            self._load.divide(())
            self._arms = {}
        if configuration != self._in_force:
            if configuration == self._change.after:
                self._guarded.apply()
            else:
                self._guarded.withdraw()
            self._in_force = configuration
            self._memory.forget_pace()
            self._tell_load()

    def renew(self, configuration: Configuration) -> None:
        """Put the baseline or the candidate in force by a restart of the server, also where it is already.

        Our load leaves the server before, and comes back after it.

        Raises
        ------
        ChangeRefused, TargetError
            As `GuardedChange.apply`, `withdraw` and `renew` do.
        NotNow
            If the server's owner does not allow it now, or for long enough.
        """
        if configuration in (self._in_force, self._change.after):  # to put back is always allowed
            self._guarded.look(_RESTARTS_SECONDS)
        if self._load:
            self._load.pause()
            self._clock.sleep(_LEAVE_SECONDS)
        try:
            is_restarted = configuration != self._in_force and self._guarded.needs_restart
            self.switch(configuration)
            if not is_restarted:
                self._guarded.renew()
                self._memory.forget_pace()
        finally:
            if self._load:
                self._load.resume()

    def divide(self, arms: Sequence[tuple[Arm, Configuration]]) -> None:
        """Let our sessions SET what they need for their arm; the server's own settings stay as they are.

        Raises
        ------
        ValueError
            If the sessions are not ours.
        """
        if self._load is None:
            raise ValueError("the sessions are not ours to divide")
        self._arms = {arm: configuration.id for arm, configuration in arms}
        # plain names: to read an enumeration of ours, a client process would import this whole room, for a second
        self._load.divide(
            [LoadArm(arm.value, self._guarded.session_settings(configuration)) for arm, configuration in arms]
        )

    def settle(self, seconds: float) -> None:
        """Let `seconds` pass, and what is still queued from before drain.

        Raises
        ------
        MemoryRunsOut
        NotNow
            If the server's owner wants the baseline back.
        """
        end_seconds = self._clock.monotonic_seconds() + seconds
        while (left := end_seconds - self._clock.monotonic_seconds()) > 0:
            self._clock.sleep(min(_LOOK_SECONDS, left))
            self._look()
        if self._load:
            drain(self._load, self._clock, look=self._look)

    def measure(self, seconds: float, *, labels: Mapping[str, str]) -> Window:
        """Record one window; what happened since the last one belongs to neither.

        Operations that are in flight at its end have not ended in it, so it does not see how long they take; a stall
        is in it as far as its operations end in it.

        Raises
        ------
        MemoryRunsOut, NotNow
        """
        return self.trace(seconds, 1, labels=labels)[0]

    def trace(self, seconds: float, steps: int, *, labels: Mapping[str, str]) -> Sequence[Window]:
        """Record the same in `steps` short windows; see `Recorder.trace`."""
        self._recorder.discard()
        return self._recorder.trace(
            seconds, steps, configuration_id=self._in_force.id, labels=labels, each_second=self._look
        )

    def measure_arms(self, seconds: float, *, labels: Mapping[str, str]) -> Mapping[Arm, Window]:
        """Record one window for each arm, of the same time; see `Recorder.record_arms`."""
        return {arm: window for arm, (window,) in self.trace_arms(seconds, 1, labels=labels).items()}

    def trace_arms(self, seconds: float, steps: int, *, labels: Mapping[str, str]) -> Mapping[Arm, Sequence[Window]]:
        """Record the same in `steps` short windows; see `Recorder.trace_arms`."""
        self._recorder.discard()
        baseline_first: dict[str, str] = {arm: self._arms[arm] for arm in Arm}
        traces = self._recorder.trace_arms(
            seconds, steps, configuration_ids=baseline_first, labels=labels, each_second=self._look
        )
        return {Arm(arm): trace for arm, trace in traces.items()}

    def _look(self) -> None:
        """See that the trial may go on: about once a second."""
        self._memory.look()
        self._guarded.look()

    def _tell_load(self) -> None:
        """Have our own sessions take part in what has changed, as new ones would."""
        if self._load is None:
            return
        if CONCURRENCY in self._in_force:
            self._load.set_connections(int(self._in_force[CONCURRENCY]))
        if not self._change.is_ours:
            self._load.replan()
