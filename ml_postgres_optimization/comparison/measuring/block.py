"""Measure one block: the load of an arm, with the faults of its level beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

from ml_postgres_optimization.comparison.arm import Arm, Part
from ml_postgres_optimization.comparison.measuring.faulting import LOCK_TIMEOUT, NO_FAULTS, FaultRates
from ml_postgres_optimization.comparison.measuring.figures import BlockFigures, figures_of
from ml_postgres_optimization.errors import TargetError
from ml_postgres_optimization.retry import Prior
from ml_postgres_optimization.telemetry import Clock, SampleBatch
from ml_postgres_optimization.telemetry.recorder import SampleSource
from ml_postgres_optimization.workload import (
    Level,
    LoadGenerator,
    LoadLimiter,
    LoadPlan,
    LoadRetries,
    usable_cores,
)
from ml_postgres_optimization.workload.faults import FaultGround, FaultInjector

# What is still under way when a block ends is waited for: it came due in it.
LONGEST_DRAIN_SECONDS = 10.0
_DRAIN_LOOK_SECONDS = 0.1
# within which a change takes effect in every client process, and is reported
_CHANGE_SECONDS = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockPlan:
    """What one block offers.

    Parameters
    ----------
    level : Level
    arm : Arm
    seed : int
    rate_per_second : float
    connections : int
        Of the pool.
    fewest_connections : int or None
        Of any arm's pool, which bounds the client processes of every arm; None where this pool is the only one.
    warm_up_seconds, seconds : float
        Before it counts, and while it does.
    faults : FaultRates
    limit : int or None
        How many operations at once a forest lets the limiter begin with; None where none says.
    """

    level: Level
    arm: Arm
    seed: int
    rate_per_second: float
    connections: int
    warm_up_seconds: float
    seconds: float
    faults: FaultRates = NO_FAULTS
    fewest_connections: int | None = None
    limit: int | None = None


class Lookout(Protocol):
    """Looks ahead while a block runs, and holds its load below a ceiling while danger is foretold."""

    held_total: int
    held_seconds: float

    def begin(self, load: LoadGenerator, samples: SampleSource) -> None:
        """Take the load of a block that has just begun, and where what it has done is told."""

    def pass_until(self, until_seconds: float) -> None:
        """Look ahead, time and again, until a monotonic time."""

    def end(self) -> None:
        """Let the load go."""


def load_plan(block: BlockPlan) -> LoadPlan:
    """Return the load of a block: what is due and when hangs on seed, rate and level, not on the arm.

    Several client processes have equal shares of the load where the connections can be divided evenly, so that they
    are cut to that. How many there are is the same in every arm, since several queues wait longer than one.
    """
    plan = LoadPlan(
        block.level.mix,
        rate_per_second=block.rate_per_second,
        connections=block.connections,
        clients=block.level.clients,
        seed=block.seed,
        session_settings={"lock_timeout": LOCK_TIMEOUT},
        retries=LoadRetries() if Part.RETRIES in block.arm.parts else None,
    )
    fewest = min(block.connections, block.fewest_connections or block.connections)
    processes = min(fewest, plan.active_count(plan.process_count(usable_cores())))
    even = max(processes, block.connections - block.connections % processes)
    limiter = _limiter(block, processes) if Part.LIMITER in block.arm.parts else None
    return replace(plan, processes=processes, connections=even, limiter=limiter)


def _limiter(block: BlockPlan, processes: int) -> LoadLimiter:
    most = max(1000, block.connections)
    if block.limit is None:
        return LoadLimiter(most=most)
    # each process has a limit of its own
    return replace(LoadLimiter.of(Prior(max(1, round(block.limit / processes)))), most=most)


def measure_block(dsn: str, block: BlockPlan, clock: Clock, lookout: Lookout | None = None) -> BlockFigures:
    """Offer the load, let it warm up, count it, and wait for what came due until its end.

    Parameters
    ----------
    dsn : str
    block : BlockPlan
    clock : Clock
    lookout : Lookout, optional
        Prevention, where the arm has it and it can do something here.

    Raises
    ------
    TargetError
        If a client process died, so that nobody knows what it had done; or of the kind that fits, where the server is
        away or refuses the load.
    UsageError
        If the server has too few connections, or faults may not strike there.
    """
    plan = load_plan(block)
    with LoadGenerator(dsn, plan) as load:
        since_seconds = load.started_at_seconds + block.warm_up_seconds
        until_seconds = since_seconds + block.seconds
        told = _Told(load)
        with _watched(told, clock, lookout) as pass_until:
            pass_until(since_seconds)
            with _faults(dsn, plan, block) as faults:
                pass_until(until_seconds)
        cpu_ratio, limit = load.cpu_ratio_since(since_seconds), load.concurrency_limit
        _drain(load, clock)
    _require_whole(load)
    figures = figures_of(
        told.take_all(),
        since_seconds,
        until_seconds,
        faults=faults.by_kind,
        cpu_ratio=cpu_ratio,
        concurrency_limit=limit,
    )
    return replace(
        figures,
        faults_planned=faults.planned,
        faults_passed_over=faults.passed_over,
        held_total=lookout.held_total if lookout else 0,
        held_seconds=lookout.held_seconds if lookout else 0.0,
    )


def _require_whole(load: LoadGenerator) -> None:
    if load.failed:
        raise TargetError(
            f"A client process of the load died: {load.last_failure}.",
            "The same command goes on with this block; where it happens again, offer less or look for memory.",
        )


class _Told:
    """What a load tells, which it tells once: for whoever looks meanwhile, and kept for the figures."""

    def __init__(self, load: LoadGenerator) -> None:
        self.load = load
        self._kept: list[SampleBatch] = []

    def take(self) -> Sequence[SampleBatch]:
        """Return what is new."""
        new = self.load.samples()
        self._kept += new
        return new

    def take_all(self) -> Sequence[SampleBatch]:
        """Return everything."""
        self.take()
        return self._kept


@contextmanager
def _watched(told: _Told, clock: Clock, lookout: Lookout | None) -> Iterator[Callable[[float], None]]:
    """Give what passes the time until a monotonic one: the lookout, or sleep."""
    if lookout is None:
        yield lambda until_seconds: clock.sleep(until_seconds - clock.monotonic_seconds())
        return
    try:
        lookout.begin(told.load, told.take)
        yield lookout.pass_until
    finally:
        lookout.end()


@dataclass(slots=True)
class _Struck:
    """What came of a block's faults: those that were in force by kind, planned ones, and those passed over."""

    by_kind: dict[str, int] = field(default_factory=dict)
    planned: int = 0
    passed_over: int = 0


@contextmanager
def _faults(dsn: str, plan: LoadPlan, block: BlockPlan) -> Iterator[_Struck]:
    """Have the block's faults strike, and count them when it is over."""
    struck = _Struck()
    if block.faults.is_none:
        yield struck
        return
    schedule = block.faults.schedule(block.seconds, block.seed)
    with FaultInjector(schedule, FaultGround(dsn, plan)) as injector:
        yield struck
    struck.planned = sum(1 for _ in schedule.by_time())
    struck.passed_over = injector.passed_over_total
    struck.by_kind = dict(Counter(record.kind for record in injector.records if record.began_seconds is not None))


def _drain(load: LoadGenerator, clock: Clock) -> None:
    """Offer nothing more, and wait until everything is done that came due."""
    load.set_rate(0.0)
    deadline_seconds = clock.monotonic_seconds() + LONGEST_DRAIN_SECONDS
    clock.sleep(_CHANGE_SECONDS)
    while clock.monotonic_seconds() < deadline_seconds:
        counters = load.counters
        if counters.due_total <= counters.succeeded_total + counters.failed_total + counters.skipped_total:
            return
        clock.sleep(_DRAIN_LOOK_SECONDS)
