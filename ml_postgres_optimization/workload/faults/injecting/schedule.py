"""Which fault comes when: drawn by a seed, before anything happens."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Real

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.workload.faults.fault import Fault, check_count
from ml_postgres_optimization.workload.faults.ground import FaultGround

HIGHEST_PER_MINUTE = 600.0
HIGHEST_PER_THOUSAND = 100.0
_LONGEST_SECONDS = 366 * 86_400.0


@dataclass(frozen=True, slots=True)
class FaultRate:
    """How often a fault comes: by the clock, or by what the load does.

    Parameters
    ----------
    fault : Fault
    per_minute : float
        Of a Poisson process in time.
    per_thousand_operations : float
        Of a Poisson process in operations, instead.

    Raises
    ------
    UsageError
        If not exactly one of the two is given, or it is too high.
    """

    fault: Fault
    per_minute: float = 0.0
    per_thousand_operations: float = 0.0

    def __post_init__(self) -> None:
        _check_rate("per_minute", self.per_minute, HIGHEST_PER_MINUTE)
        _check_rate("per_thousand_operations", self.per_thousand_operations, HIGHEST_PER_THOUSAND)
        if bool(self.per_minute) == bool(self.per_thousand_operations):
            raise UsageError(
                f"The rate of {self.fault.kind} is {self.per_minute!r} a minute and "
                f"{self.per_thousand_operations!r} per thousand operations.",
                "Give one of the two.",
            )


@dataclass(frozen=True, slots=True, order=True)
class Occurrence:
    """One fault of a schedule.

    Parameters
    ----------
    due : float
        Seconds since the start, or operations of the load.
    place : int
        Its rate's in the schedule.
    number : int
        From 0, among those of the same rate.
    seed : int
        Of what it will draw.
    """

    due: float
    place: int
    number: int
    seed: int


@dataclass(frozen=True, slots=True)
class FaultSchedule:
    """Faults of several kinds, each at its rate.

    Parameters
    ----------
    rates : tuple of FaultRate
    seconds : float
        When it ends: none begins later, and those under way are ended.
    seed : int
        The same seed gives the same faults at the same times, each kind by itself: a rate that is added after the
        others changes nothing in theirs.
    most_at_once : int
        What is due while so many are under way does not happen; nor does what strikes the server itself while another
        such fault is under way.

    Raises
    ------
    UsageError
        If a value makes no sense.

    Examples
    --------
    >>> from ml_postgres_optimization.workload.faults import FaultRate, Termination
    >>> schedule = FaultSchedule((FaultRate(Termination(), per_minute=2.0),), seconds=120.0, seed=2)
    >>> [round(occurrence.due, 1) for occurrence in schedule.by_time()]
    [40.8, 80.6, 103.3]
    """

    rates: tuple[FaultRate, ...]
    seconds: float
    seed: int = 0
    most_at_once: int = 1

    def __post_init__(self) -> None:
        if not self.rates:
            raise UsageError("A schedule of faults has no rate.", "Give at least one FaultRate.")
        if not (isinstance(self.seconds, Real) and 0.0 < self.seconds <= _LONGEST_SECONDS):
            raise UsageError(f"seconds of a schedule is {self.seconds!r}.", "Choose from just above 0 to a year.")
        check_count("most_at_once", self.most_at_once)

    @property
    def counts_operations(self) -> bool:
        """Whether it has to know what the load has done."""
        return any(rate.per_thousand_operations for rate in self.rates)

    def check(self, ground: FaultGround) -> None:
        """Refuse a ground that lacks what one of the faults needs.

        Raises
        ------
        UsageError
        """
        for rate in self.rates:
            rate.fault.check(ground)

    def by_time(self) -> Iterator[Occurrence]:
        """Yield what comes by the clock, in order, up to the schedule's end."""
        streams = [
            _drawn(self.seed, place, rate.per_minute / 60.0, self.seconds)
            for place, rate in enumerate(self.rates)
            if rate.per_minute
        ]
        return heapq.merge(*streams)

    def by_operations(self) -> Iterator[Occurrence]:
        """Yield what comes by the load's operations, in order, without end."""
        streams = [
            _drawn(self.seed, place, rate.per_thousand_operations / 1000.0, math.inf)
            for place, rate in enumerate(self.rates)
            if rate.per_thousand_operations
        ]
        return heapq.merge(*streams)


class Agenda:
    """What of a schedule still lies ahead.

    Parameters
    ----------
    schedule : FaultSchedule
    elapsed_seconds : float
        What came by the clock before is left out.
    """

    def __init__(self, schedule: FaultSchedule, elapsed_seconds: float = 0.0) -> None:
        self._by_time, self._by_operations = schedule.by_time(), schedule.by_operations()
        self._next_in_time = next(self._by_time, None)
        self._next_in_operations = next(self._by_operations, None)
        if elapsed_seconds:
            self.take(elapsed_seconds, 0)

    @property
    def next_seconds(self) -> float:
        """When the next fault comes by the clock, counted from the start; infinity for never."""
        return math.inf if self._next_in_time is None else self._next_in_time.due

    def take(self, seconds: float, operations: int) -> list[Occurrence]:
        """Return what has come due by now, each once.

        Parameters
        ----------
        seconds : float
            Since the start.
        operations : int
            Of the load, since the start.
        """
        due = []
        while self._next_in_time is not None and self._next_in_time.due <= seconds:
            due.append(self._next_in_time)
            self._next_in_time = next(self._by_time, None)
        while self._next_in_operations is not None and self._next_in_operations.due <= operations:
            due.append(self._next_in_operations)
            self._next_in_operations = next(self._by_operations, None)
        return due


def _drawn(seed: int, place: int, rate: float, end: float) -> Iterator[Occurrence]:
    """Draw a Poisson process of `rate`; from a generator of its own, so that no other disturbs it."""
    draw = random.Random(f"{seed}/{place}")
    due, number = draw.expovariate(rate), 0
    while due < end:
        yield Occurrence(due, place, number, draw.getrandbits(32))
        due += draw.expovariate(rate)
        number += 1


def _check_rate(name: str, rate: object, highest: float) -> None:
    if not (isinstance(rate, Real) and 0.0 <= float(rate) <= highest):
        raise UsageError(f"{name} of a fault is {rate!r}.", f"Choose from 0 to {highest:g}.")
