"""The blocks of a trial, in time one after the other or side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ml_postgres_optimization.knobs.configuration import Change, Configuration
from ml_postgres_optimization.telemetry import Window
from ml_postgres_optimization.trials.layout.design import Switch, TrialPlan
from ml_postgres_optimization.trials.layout.settling import Settling
from ml_postgres_optimization.trials.proposal import Arm, Design


class Arena(Protocol):
    """Something that runs under one configuration at a time, and can be measured."""

    def switch(self, configuration: Configuration) -> None:
        """Put `configuration` in force for everybody; nothing happens if it is already."""

    def settle(self, seconds: float) -> None:
        """Let `seconds` pass, or more, until what the configuration before has left behind is gone."""

    def measure(self, seconds: float, *, labels: Mapping[str, str]) -> Window:
        """Observe for `seconds` from now on, and return what happened."""

    def trace(self, seconds: float, steps: int, *, labels: Mapping[str, str]) -> Sequence[Window]:
        """Observe the same in `steps` windows of the same length, without gaps."""


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

    def trace_arms(self, seconds: float, steps: int, *, labels: Mapping[str, str]) -> Mapping[Arm, Sequence[Window]]:
        """Observe the same in `steps` windows of the same length, without gaps."""


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

    @property
    def settling(self) -> Settling | None:
        """What is known of how long the response takes to settle; None where the plan alone says it."""

    def baseline(self) -> Window:
        """Run a block of the baseline, and return what happened in it."""

    def pair(self, candidate_first: bool) -> Mapping[Arm, Window]:
        """Run a block of each arm; the coin that exchanges them is the caller's."""

    def traced_pair(self, candidate_first: bool, steps: int) -> Mapping[Arm, Sequence[Window]]:
        """Run the same, and return each block in `steps` short windows."""

    def leave(self, configuration: Configuration) -> None:
        """Leave the baseline or the candidate in force for everybody."""


class BlocksInTurn(Blocks, Protocol):
    """Blocks that can be run one by one."""

    def block(self, arm: Arm) -> Window:
        """Run a block of one arm, and return what happened in it."""


def discarded_seconds(blocks: Blocks) -> float:
    """Return what is discarded before the next block, of either arm."""
    plan = blocks.settling.applied_to(blocks.plan) if blocks.settling else blocks.plan
    return plan.settle_seconds_for(Switch.of(blocks.change, blocks.design))


def _in_order(candidate_first: bool) -> tuple[Arm, Arm]:
    return (Arm.CANDIDATE, Arm.BASELINE) if candidate_first else (Arm.BASELINE, Arm.CANDIDATE)


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
    settling : Settling, optional
        Says how much more than the plan's length is discarded before a block.
    """

    arena: Arena
    plan: TrialPlan
    change: Change
    labels: Mapping[str, str] = field(default_factory=dict)
    settling: Settling | None = None
    design = Design.SWITCHBACK

    def baseline(self) -> Window:
        """Run a block of the baseline."""
        return self.block(Arm.BASELINE)

    def block(self, arm: Arm) -> Window:
        """Run a block of one arm."""
        return self.arena.measure(self.plan.block_seconds, labels=self._begun(arm))

    def pair(self, candidate_first: bool) -> Mapping[Arm, Window]:
        """Run a block of each arm, the candidate's first or last."""
        return {arm: self.block(arm) for arm in _in_order(candidate_first)}

    def traced_pair(self, candidate_first: bool, steps: int) -> Mapping[Arm, Sequence[Window]]:
        """Run the same, and return each block in `steps` short windows."""
        return {arm: self._trace(arm, steps) for arm in _in_order(candidate_first)}

    def leave(self, configuration: Configuration) -> None:
        """Leave `configuration` in force."""
        self.arena.switch(configuration)

    def _trace(self, arm: Arm, steps: int) -> Sequence[Window]:
        return self.arena.trace(self.plan.block_seconds, steps, labels=self._begun(arm))

    def _begun(self, arm: Arm) -> dict[str, str]:
        # the settle time passes before every block, switched or not: what differs between the blocks of a pair
        # may hang on the coin only through the arm
        self.arena.switch(self.change.after if arm is Arm.CANDIDATE else self.change.before)
        self.arena.settle(discarded_seconds(self))
        return {"phase": "trial", **self.labels, "arm": arm}


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
    settling : Settling, optional
        Says how much longer than the plan's the caches are filled before a block.
    """

    arena: RestartedArena
    plan: TrialPlan
    change: Change
    labels: Mapping[str, str] = field(default_factory=dict)
    settling: Settling | None = None
    design = Design.RESTART

    def baseline(self) -> Window:
        """Run a block of the baseline."""
        return self.block(Arm.BASELINE)

    def block(self, arm: Arm) -> Window:
        """Run a block of one arm."""
        return self.arena.measure(self.plan.block_seconds, labels=self._begun(arm))

    def pair(self, candidate_first: bool) -> Mapping[Arm, Window]:
        """Run a block of each arm, the candidate's first or last."""
        return {arm: self.block(arm) for arm in _in_order(candidate_first)}

    def traced_pair(self, candidate_first: bool, steps: int) -> Mapping[Arm, Sequence[Window]]:
        """Run the same, and return each block in `steps` short windows."""
        return {arm: self._trace(arm, steps) for arm in _in_order(candidate_first)}

    def leave(self, configuration: Configuration) -> None:
        """Leave `configuration` in force, by one more restart where it is not."""
        self.arena.switch(configuration)

    def _trace(self, arm: Arm, steps: int) -> Sequence[Window]:
        return self.arena.trace(self.plan.block_seconds, steps, labels=self._begun(arm))

    def _begun(self, arm: Arm) -> dict[str, str]:
        self.arena.renew(self.change.after if arm is Arm.CANDIDATE else self.change.before)
        self.arena.settle(discarded_seconds(self))
        return {"phase": "trial", **self.labels, "design": self.design, "arm": arm}


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
    settling : Settling, optional
        Says how much more than the plan's length is discarded before a block.
    """

    arena: DividedArena
    plan: TrialPlan
    change: Change
    labels: Mapping[str, str] = field(default_factory=dict)
    settling: Settling | None = None
    design = Design.CONCURRENT

    def baseline(self) -> Window:
        """Run the baseline in both parts, and return what happened in one: a block is as a pair's are."""
        return self._run(((Arm.BASELINE, self.change.before), (Arm.CANDIDATE, self.change.before)))[Arm.BASELINE]

    def pair(self, candidate_first: bool) -> Mapping[Arm, Window]:
        """Run both arms at once; the coin says which of the two parts that were drawn is the candidate's."""
        return self._run(self._arms(candidate_first))

    def traced_pair(self, candidate_first: bool, steps: int) -> Mapping[Arm, Sequence[Window]]:
        """Run the same, and return each block in `steps` short windows."""
        labels = self._begun(self._arms(candidate_first))
        return self.arena.trace_arms(self.plan.block_seconds, steps, labels=labels)

    def leave(self, configuration: Configuration) -> None:
        """Leave `configuration` in force for everybody."""
        self.arena.switch(configuration)

    def _arms(self, candidate_first: bool) -> Sequence[tuple[Arm, Configuration]]:
        arms = {Arm.BASELINE: self.change.before, Arm.CANDIDATE: self.change.after}
        return [(arm, arms[arm]) for arm in _in_order(candidate_first)]

    def _run(self, arms: Sequence[tuple[Arm, Configuration]]) -> Mapping[Arm, Window]:
        return self.arena.measure_arms(self.plan.block_seconds, labels=self._begun(arms))

    def _begun(self, arms: Sequence[tuple[Arm, Configuration]]) -> dict[str, str]:
        self.arena.divide(arms)
        self.arena.settle(discarded_seconds(self))
        return {"phase": "trial", **self.labels, "design": self.design}
