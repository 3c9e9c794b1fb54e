"""The blocks of a trial, in time one after the other or side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ml_postgres_optimization.knobs.configuration import Change, Configuration
from ml_postgres_optimization.telemetry import Window
from ml_postgres_optimization.trials.layout.design import TrialPlan
from ml_postgres_optimization.trials.proposal import Arm, Design


class Arena(Protocol):
    """Something that runs under one configuration at a time, and can be measured."""

    def switch(self, configuration: Configuration) -> None:
        """Put `configuration` in force for everybody; nothing happens if it is already."""

    def settle(self, seconds: float) -> None:
        """Let `seconds` pass, or more, until what the configuration before has left behind is gone."""

    def measure(self, seconds: float, *, labels: Mapping[str, str]) -> Window:
        """Observe for `seconds` from now on, and return what happened."""


class RestartedArena(Arena, Protocol):
    """An arena whose server can be restarted."""

    def renew(self, configuration: Configuration) -> None:
        """Put `configuration` in force by a restart, also where it is already."""


class DividedArena(Arena, Protocol):
    """An arena whose sessions are ours, and can run under two configurations at the same time."""

    def divide(self, arms: Sequence[tuple[Arm, Configuration]]) -> None:
        """Give each arm a part of the sessions and of the work, drawn by lot; their order decides which of them."""

    def measure_arms(self, seconds: float, *, labels: Mapping[str, str]) -> Mapping[Arm, Window]:
        """Observe for `seconds` from now on, and return what happened in each arm."""


class Blocks(Protocol):
    """The blocks of one trial; pairs of them are what the sequential test compares."""

    @property
    def design(self) -> Design:
        """How a pair is laid out."""

    @property
    def change(self) -> Change:
        """From the baseline to the candidate."""

    @property
    def plan(self) -> TrialPlan:
        """Lengths, limits and objective."""

    def baseline(self) -> Window:
        """Run a block of the baseline, and return what happened in it."""

    def pair(self, candidate_first: bool) -> Mapping[Arm, Window]:
        """Run a block of each arm; the coin that exchanges them is the caller's."""

    def leave(self, configuration: Configuration) -> None:
        """Leave the baseline or the candidate in force for everybody."""


@dataclass(frozen=True, slots=True)
class Switchback:
    """Blocks one after the other: everybody runs one arm, then the other.

    Parameters
    ----------
    arena : Arena
    plan : TrialPlan
    change : Change
    labels : mapping of str to str
        Put on every window, beside ``phase`` and ``arm``.
    """

    arena: Arena
    plan: TrialPlan
    change: Change
    labels: Mapping[str, str] = field(default_factory=dict)
    design = Design.SWITCHBACK

    def baseline(self) -> Window:
        """Run a block of the baseline."""
        return self._run(Arm.BASELINE)

    def pair(self, candidate_first: bool) -> Mapping[Arm, Window]:
        """Run a block of each arm, the candidate's first or last."""
        order = (Arm.CANDIDATE, Arm.BASELINE) if candidate_first else (Arm.BASELINE, Arm.CANDIDATE)
        return {arm: self._run(arm) for arm in order}

    def leave(self, configuration: Configuration) -> None:
        """Leave `configuration` in force."""
        self.arena.switch(configuration)

    def _run(self, arm: Arm) -> Window:
        # the settle time passes before every block, switched or not: what differs between the blocks of a pair
        # may hang on the coin only through the arm
        self.arena.switch(self.change.after if arm is Arm.CANDIDATE else self.change.before)
        self.arena.settle(self.plan.settle_seconds_for(self.change))
        return self.arena.measure(self.plan.block_seconds, labels={"phase": "trial", **self.labels, "arm": arm})


@dataclass(frozen=True, slots=True)
class Restarting:
    """Blocks one after the other, each after a restart of its own and the same time under load to fill the caches.

    The server is restarted before every block, its arm changed or not, so that the blocks of a pair differ in the arm
    alone.

    Parameters
    ----------
    arena : RestartedArena
    plan : TrialPlan
    change : Change
    labels : mapping of str to str
        Put on every window, beside ``phase``, ``design`` and ``arm``.
    """

    arena: RestartedArena
    plan: TrialPlan
    change: Change
    labels: Mapping[str, str] = field(default_factory=dict)
    design = Design.RESTART

    def baseline(self) -> Window:
        """Run a block of the baseline."""
        return self._run(Arm.BASELINE)

    def pair(self, candidate_first: bool) -> Mapping[Arm, Window]:
        """Run a block of each arm, the candidate's first or last."""
        order = (Arm.CANDIDATE, Arm.BASELINE) if candidate_first else (Arm.BASELINE, Arm.CANDIDATE)
        return {arm: self._run(arm) for arm in order}

    def leave(self, configuration: Configuration) -> None:
        """Leave `configuration` in force, by one more restart where it is not."""
        self.arena.switch(configuration)

    def _run(self, arm: Arm) -> Window:
        self.arena.renew(self.change.after if arm is Arm.CANDIDATE else self.change.before)
        self.arena.settle(self.plan.warm_up_seconds)
        labels = {"phase": "trial", **self.labels, "design": self.design, "arm": arm}
        return self.arena.measure(self.plan.block_seconds, labels=labels)


@dataclass(frozen=True, slots=True)
class Concurrent:
    """Blocks side by side: a part of our sessions, drawn afresh for each pair, runs each arm at the same time.

    What hits the server hits both arms, so that pairs differ less, and come twice as fast. What the arms share they
    share: a candidate that takes memory or disk from everybody slows the baseline too, and an effect comes out
    smaller than it will be for all. So it is only for knobs whose effect is their own session's (`Scope.SESSION`).

    Parameters
    ----------
    arena : DividedArena
    plan : TrialPlan
    change : Change
    labels : mapping of str to str
        Put on every window, beside ``phase`` and ``design``.
    """

    arena: DividedArena
    plan: TrialPlan
    change: Change
    labels: Mapping[str, str] = field(default_factory=dict)
    design = Design.CONCURRENT

    def baseline(self) -> Window:
        """Run the baseline in both parts, and return what happened in one: a block is as a pair's are."""
        return self._run(((Arm.BASELINE, self.change.before), (Arm.CANDIDATE, self.change.before)))[Arm.BASELINE]

    def pair(self, candidate_first: bool) -> Mapping[Arm, Window]:
        """Run both arms at once; the coin says which of the two parts that were drawn is the candidate's."""
        arms = [(Arm.BASELINE, self.change.before), (Arm.CANDIDATE, self.change.after)]
        return self._run(arms[::-1] if candidate_first else arms)

    def leave(self, configuration: Configuration) -> None:
        """Leave `configuration` in force for everybody."""
        self.arena.switch(configuration)

    def _run(self, arms: Sequence[tuple[Arm, Configuration]]) -> Mapping[Arm, Window]:
        self.arena.divide(arms)
        self.arena.settle(self.plan.client_settle_seconds)
        labels = {"phase": "trial", **self.labels, "design": self.design}
        return self.arena.measure_arms(self.plan.block_seconds, labels=labels)
