"""What load to offer, as a value that can be sent to another process."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Self

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.retry import CircuitBreaker, ConcurrencyLimit, Prior, RetryBudget, RetryPolicy
from ml_postgres_optimization.workload.mix import Mix

RateShape = Callable[[float], float]

# 3,000 operations of the soak mix per second cost a process a third of a core (benchmarks/generator.py), so about
# 9,000 would fill it; it must stay below 80 % for its latencies to be believed, and bursts need room.
RATE_PER_PROCESS = 5_000.0
MAXIMUM_CONNECTIONS = 10_000
MAXIMUM_RATE_PER_SECOND = 1_000_000.0


def constant(_seconds: float) -> float:
    """Keep the rate as it is."""
    return 1.0


@dataclass(frozen=True, slots=True)
class LoadArm:
    """One arm of a load that is divided: a part of the sessions, and of the operations.

    Parameters
    ----------
    name : str
        On every sample of its sessions.
    settings : mapping of str to str
        SET in its sessions, over what they began with.
    """

    name: str
    settings: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRetries:
    """How operations that fail are done again.

    Parameters
    ----------
    policy : RetryPolicy
        How often, how long and how soon. What only reads is repeated as if the policy said `is_idempotent`.
    budget_ratio, budget_reserve : float
        Of each process's `RetryBudget`: repetitions for each operation, and how many there are from the start.
    breaker_failures : int
        Lost connections in a row that open a process's circuit.

    Raises
    ------
    UsageError
        If a value makes no sense.
    """

    policy: RetryPolicy = field(default_factory=RetryPolicy)
    budget_ratio: float = 0.1
    budget_reserve: float = 10.0
    breaker_failures: int = 5

    def __post_init__(self) -> None:
        RetryBudget(ratio=self.budget_ratio, reserve=self.budget_reserve)
        CircuitBreaker(failures=self.breaker_failures)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadLimiter:
    """How many operations each process lets run at once: `ConcurrencyLimit` finds out, from `initial` on.

    Raises
    ------
    UsageError
        Unless 1 <= least <= initial <= most.
    """

    initial: int = 8
    least: int = 1
    most: int = 1000

    def __post_init__(self) -> None:
        self.limit()

    @classmethod
    def of(cls, prior: Prior) -> Self:
        """Return a limiter that begins as a forecast says, and stays below what it allows.

        Of several processes each has a limit of its own: give each its part.
        """
        most = cls().most if prior.ceiling is None else prior.ceiling
        return cls(initial=prior.begin, most=max(prior.begin, most))

    def limit(self, seed: int = 0) -> ConcurrencyLimit:
        """Return a limit that has learnt nothing yet."""
        return ConcurrencyLimit(self.initial, least=self.least, most=self.most, seed=seed)


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What load to offer.

    Parameters
    ----------
    mix : Mix
    rate_per_second : float or None
        Open loop: operations become due by a Poisson process of this rate, however slow the server is. None:
        closed loop, each client asks again as soon as it is served.
    connections : int
        Operations that run at once, over all processes: the knob ``client.concurrency``.
    clients : int
        Logical users. The closed loop keeps this many in flight, and they share the connections; the open loop
        only reports it, since its users do not wait for each other.
    seed : int
        Not negative; the same seed gives the same operations at the same times.
    processes : int or None
        Client processes, at most one for each core and for each connection. None: as few as the rate needs, since
        each serves a queue of its own with its share of the connections, and several queues wait longer than one; in
        the closed loop, which asks for all that the server can do, one for each core.
    session_settings : mapping of str to str
        SET in every session, before anything else.
    rate_shape : callable
        Seconds since the start → factor on the rate, from 0 up. Must pickle: a module's function, or an
        instance of a module's class.
    zipf_exponent : float
        Skew of the keys: 0 for none, 0.99 for the usual hot spot.
    key_count : int or None
        Use the first so many accounts only; None for all of them.
    queue_limit : int
        Operations that may wait in each process; what comes due beyond is counted as skipped.
    arms : tuple of LoadArm
        Where given, sessions are divided over them as evenly as they can be, at random, and each operation goes to
        one of them by a fair coin. Their order decides which of the random parts each gets.
    is_paused : bool
        Whether nothing is offered for now, and no session is open.
    drain_seconds : float
        How long running operations may take to finish at the end; then they are cancelled, and count as failed.
    retries : LoadRetries or None
        Where given, an operation that fails in a way that passes is done again as a whole. It is one sample still,
        whose times contain all attempts and waits.
    limiter : LoadLimiter or None
        Where given, no more operations run at once than the server answers best, however many `connections` there
        are; the others wait in the queue.
    ceiling : int or None
        Operations at work at most, over all processes, whatever `limiter` finds: held for a while, when a forecast
        warns. Sessions stay open. Each process and arm that takes part has one at least.
    schedule_start_seconds : float or None
        Monotonic time that the schedule counts from, for a load that goes on where another has ended: what came due
        until it has connected is nobody's. None: from when all have connected.
    ledger : tuple of str and int, optional
        The run and its epoch (`accounting.Ledger`) for which operations that write book themselves.
    report_seconds : float
        How long a process keeps its samples before it hands them over: what is lost with it, how late its counters
        are, and how often somebody must hear it.

    Raises
    ------
    UsageError
        If a value makes no sense.

    References
    ----------
    Zipf exponent 0.99: B. Cooper et al., "Benchmarking Cloud Serving Systems with YCSB", SoCC 2010.
    """

    mix: Mix
    rate_per_second: float | None = None
    connections: int = 8
    clients: int = 500
    seed: int = 0
    processes: int | None = None
    session_settings: Mapping[str, str] = field(default_factory=dict)
    rate_shape: RateShape = constant
    zipf_exponent: float = 0.99
    key_count: int | None = None
    queue_limit: int = 100_000
    arms: tuple[LoadArm, ...] = ()
    is_paused: bool = False
    drain_seconds: float = 5.0
    retries: LoadRetries | None = None
    limiter: LoadLimiter | None = None
    ceiling: int | None = None
    schedule_start_seconds: float | None = None
    ledger: tuple[str, int] | None = None
    report_seconds: float = 0.2

    def __post_init__(self) -> None:
        if self.rate_per_second is not None:
            _check("rate_per_second", self.rate_per_second, 0, MAXIMUM_RATE_PER_SECOND)
        _check_whole("connections", self.connections, max(1, len(self.arms)), MAXIMUM_CONNECTIONS)
        _check_whole("clients", self.clients, 1, 1_000_000)
        _check_whole("seed", self.seed, 0, 2**63 - 1)
        if self.ceiling is not None:
            _check_whole("ceiling", self.ceiling, 1, MAXIMUM_CONNECTIONS)
        if self.processes is not None:
            _check_whole("processes", self.processes, 1, MAXIMUM_CONNECTIONS)
        _check("zipf_exponent", self.zipf_exponent, 0, 5)
        _check("report_seconds", self.report_seconds, 0.01, 5)
        if self.key_count is not None:
            _check_whole("key_count", self.key_count, 1, 2**31)
        _check_whole("queue_limit", self.queue_limit, 1, 10_000_000)
        _check("drain_seconds", self.drain_seconds, 0, 3600)
        if self.schedule_start_seconds is not None:
            _check("schedule_start_seconds", self.schedule_start_seconds, -math.inf, math.inf)
        _check("rate_shape at the start", self.rate_shape(0.0), 0, math.inf)

    @property
    def is_open_loop(self) -> bool:
        """Whether operations become due by the clock, and not by the answer to the one before."""
        return self.rate_per_second is not None

    def process_count(self, cores: int) -> int:
        """Return how many client processes to start where we may use so many cores; never more than connections.

        Where the plan leaves it open, one more than its rate needs, which rests until a higher rate calls for it. A
        load that goes on has as many as it had, however few the cores: each draws operations of its own.
        """
        most = min(cores, self.connections)
        if self.processes is not None and self.schedule_start_seconds is not None:
            return min(self.processes, self.connections)
        if self.processes is not None:
            return min(self.processes, most)
        return most if self.rate_per_second is None else min(self._needed + 1, most)

    def active_count(self, started: int) -> int:
        """Return how many of the processes that were started take part at the present rate."""
        if self.processes is not None or self.rate_per_second is None:
            return started
        return min(self._needed, started)

    @property
    def _needed(self) -> int:
        return max(1, math.ceil((self.rate_per_second or 0.0) / RATE_PER_PROCESS))


def _check(name: str, value: object, lowest: float, highest: float) -> None:
    if not (isinstance(value, Real) and math.isfinite(value) and lowest <= float(value) <= highest):
        limits = f"from {lowest:,} up" if math.isinf(highest) else f"from {lowest:,} to {highest:,}"
        raise UsageError(f"{name} is {value!r}", f"Choose a number {limits}.")


def _check_whole(name: str, value: object, lowest: int, highest: int) -> None:
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise UsageError(f"{name} is {value!r}", "Choose a whole number.")
    _check(name, value, lowest, highest)
