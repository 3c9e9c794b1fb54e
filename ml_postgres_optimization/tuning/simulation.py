"""Vary knobs, concurrency, mix and level by design, so that the data can teach what a knob does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

from numpy.random import default_rng

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.knobs.configuration import CONCURRENCY, Change, Configuration
from ml_postgres_optimization.safety.guarded_change import GuardedChange
from ml_postgres_optimization.telemetry import Window
from ml_postgres_optimization.trials import Load, drain
from ml_postgres_optimization.tuning.laboratory import Laboratory
from ml_postgres_optimization.tuning.search import Axis, SearchSpace
from ml_postgres_optimization.tuning.search.encoding import Floats
from ml_postgres_optimization.workload import LEVELS, Level, OperationKind, OperationMix

OnWindow = Callable[[Configuration, Window], None]

SETTLE_SECONDS = 2.0
PAUSE_SECONDS = 0.5
_READ_SHARES = (0.1, 0.9)
# How far towards a point of the design that the guard refuses, seen from the initial configuration, is tried instead.
_SHARES_OF_THE_WAY = (1.0, 0.5, 0.25, 0.1)


class ShapedLoad(Load, Protocol):
    """Load of our own whose rate and mix can be changed too."""

    def set_rate(self, rate_per_second: float) -> None:
        """Offer so many operations per second from now on."""

    def set_mix(self, mix: OperationMix) -> None:
        """Offer operations of this mix from now on."""


@dataclass(frozen=True, slots=True)
class SimulationPlan:
    """A randomised design, and how long it may take.

    Parameters
    ----------
    seconds : float
        For everything; no further window is begun after it.
    capacity_per_second : float
        Operations per second that the server can do; levels are shares of it.
    seed : int
    window_seconds : float
    settle_seconds : float
        After a reload, with no load: what was queued drains.
    pause_seconds : float
        Without load before each window, and again with its load: a change takes effect within 0.5 s.
    scenes : int
        Different loads in each server configuration.
    windows_per_scene : int
        Windows of the same load that follow each other without a pause: what comes next is what a forecast learns.

    Raises
    ------
    UsageError
        If a figure makes no sense, or the time does not suffice for one configuration.
    """

    seconds: float
    capacity_per_second: float
    seed: int
    window_seconds: float = 1.0
    settle_seconds: float = SETTLE_SECONDS
    pause_seconds: float = PAUSE_SECONDS
    scenes: int = 6
    windows_per_scene: int = 2

    def __post_init__(self) -> None:
        if (
            self.window_seconds <= 0
            or min(self.scenes, self.windows_per_scene) < 1
            or self.capacity_per_second <= 0
            or self.configurations < 1
        ):
            raise UsageError(
                f"In {self.seconds:g} s no configuration can be simulated.",
                f"Allow {self._configuration_seconds:.0f} s at least.",
            )

    @property
    def _configuration_seconds(self) -> float:
        return self.settle_seconds + self.scenes * (
            self.windows_per_scene * self.window_seconds + 2 * self.pause_seconds
        )

    @property
    def configurations(self) -> int:
        """How many server configurations the time suffices for."""
        return int(self.seconds / self._configuration_seconds)


@dataclass(frozen=True, slots=True)
class _Scene:
    """The load of one window."""

    concurrency: int | None
    level: Level
    mix: OperationMix


def simulate(
    laboratory: Laboratory,
    load: ShapedLoad,
    space: SearchSpace,
    initial: Configuration,
    plan: SimulationPlan,
    *,
    on_window: OnWindow | None = None,
) -> int:
    """Run the design, one window after the other, and put the initial configuration back.

    The first configuration is the initial one; the others fill the search space as a Latin hypercube. Where the guard
    refuses a point, one on the way to it is taken.

    Parameters
    ----------
    laboratory : Laboratory
        Its recorder's subscribers receive every window, labelled ``phase=simulate`` and with its ``level``.
    load : ShapedLoad
        Running, in the open loop; its rate and mix are the last window's afterwards.
    space : SearchSpace
    initial : Configuration
        In force now.
    plan : SimulationPlan
    on_window : callable, optional
        Receives each window with its configuration.

    Returns
    -------
    int
        How many windows were made.

    Raises
    ------
    TargetError, JournalError
        If the server or the journal fails; the guard has put the initial configuration back, or will at the next
        start.
    """
    simulation = _Simulation(laboratory, load, space, initial, plan, on_window or _nobody)
    try:
        return sum(simulation.windows(configuration) for configuration in simulation.configurations())
    finally:
        if CONCURRENCY in initial:
            load.set_connections(int(initial[CONCURRENCY]))


def _nobody(_configuration: Configuration, _window: Window) -> None:
    """Stand in for a listener."""


@dataclass(slots=True)
class _Simulation:
    laboratory: Laboratory
    load: ShapedLoad
    space: SearchSpace
    initial: Configuration
    plan: SimulationPlan
    on_window: OnWindow
    _end_seconds: float = field(init=False)
    _scenes: Iterator[_Scene] = field(init=False)

    def __post_init__(self) -> None:
        self._end_seconds = self.laboratory.clock.monotonic_seconds() + self.plan.seconds
        self._scenes = _scenes(self.plan, self.space.axes.get(CONCURRENCY))

    def configurations(self) -> Iterator[Configuration]:
        """Yield the initial configuration, and then the design, as far as the guard lets it pass."""
        yield self.initial
        start = self.space.encode(self.initial)
        for point in _hypercube(self.plan.configurations - 1, len(start), self.plan.seed):
            for share in _SHARES_OF_THE_WAY:
                there = self.space.decode(start + share * (point - start), self.initial)
                configuration = there.replaced(self._client(self.initial))
                if self.laboratory.allows(configuration, self.initial):
                    yield configuration
                    break

    def windows(self, configuration: Configuration) -> int:
        """Put `configuration` in force, record a window for each of its scenes, and put it back."""
        if self._is_late():
            return 0
        made = 0
        laboratory, change = self.laboratory, Change(self.initial, configuration)
        with laboratory.guard.trial(change, laboratory.new_trial_id()) as guarded:
            self.load.set_rate(0.0)
            guarded.apply()
            self.load.replan()
            self._pause(self.plan.settle_seconds, guarded)
            for scene in islice(self._scenes, self.plan.scenes):
                in_scene = configuration.replaced(
                    {} if scene.concurrency is None else {CONCURRENCY: scene.concurrency}
                )
                if not self._is_late() and laboratory.allows(in_scene, self.initial):
                    made += self._play(scene, in_scene, guarded)
        return made

    def _pause(self, seconds: float, guarded: GuardedChange) -> None:
        guarded.look()
        self.laboratory.clock.sleep(seconds)

    def _play(self, scene: _Scene, configuration: Configuration, guarded: GuardedChange) -> int:
        """Put the scene's load on, and record its windows; end at once where the server's owner calls a halt."""
        laboratory, plan = self.laboratory, self.plan
        self.load.set_rate(0.0)
        self._pause(plan.pause_seconds, guarded)
        drain(self.load, laboratory.clock, look=guarded.look)
        if scene.concurrency is not None:
            self.load.set_connections(scene.concurrency)
        self.load.set_mix(scene.mix)
        self.load.set_rate(scene.level.capacity_ratio * plan.capacity_per_second)
        self._pause(plan.pause_seconds, guarded)
        laboratory.recorder.discard()
        labels = {**laboratory.labels, "phase": "simulate", "level": scene.level.name}
        for _ in range(plan.windows_per_scene):
            (window,) = laboratory.recorder.trace(
                plan.window_seconds, 1, configuration_id=configuration.id, labels=labels, each_second=guarded.look
            )
            self.on_window(configuration, window)
        return plan.windows_per_scene

    def _is_late(self) -> bool:
        return self.laboratory.clock.monotonic_seconds() >= self._end_seconds

    @staticmethod
    def _client(configuration: Configuration) -> Configuration:
        return Configuration({name: value for name, value in configuration.items() if name == CONCURRENCY})


def _hypercube(count: int, width: int, seed: int) -> Floats:
    """Return `count` points of the unit cube; each axis is filled evenly."""
    from scipy.stats import qmc  # type: ignore[import-untyped]  # noqa: PLC0415  (a second)

    points: Floats = qmc.LatinHypercube(width, rng=default_rng(seed)).random(count)
    return points


def _scenes(plan: SimulationPlan, concurrency: Axis | None) -> Iterator[_Scene]:
    """Yield the load of one window after the other; connections, level and reads have a design of their own."""
    levels = tuple(LEVELS.values())
    least, most = _READ_SHARES
    for connections, level, reads in _hypercube(plan.configurations * plan.scenes, 3, plan.seed + 1):
        chosen = levels[int(level * len(levels))]
        yield _Scene(
            concurrency=None if concurrency is None else concurrency.decode(connections),
            level=chosen,
            mix=_with_reads(chosen.mix, least + reads * (most - least)),
        )


def _with_reads(mix: OperationMix, share: float) -> OperationMix:
    """Return `mix` with this share of reads, the other kinds in their old proportions."""
    others = sum(weight for kind, weight in mix.weights.items() if kind is not OperationKind.READ)
    scaled = {kind: weight / others * (1 - share) for kind, weight in mix.weights.items()}
    return OperationMix({**scaled, OperationKind.READ: share})
