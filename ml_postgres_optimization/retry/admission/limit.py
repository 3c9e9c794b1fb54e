"""How many calls a server bears at a time, learnt from how it answers to a little more and a little less."""

from __future__ import annotations

import math
import random
import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from ml_postgres_optimization.errors import UsageError

# Kleinrock's power with the exponent 2, throughput² by latency, is greatest where one percent more at work brings two
# thirds of a percent of latency.
_TARGET_ELASTICITY = 2 / 3
# Where calls wait to be let in, what they wait for is throughput, wherever they do it: up to where one percent more
# at work brings next to none. Beyond it is a plateau that no block can tell from it, and then a slope that each can.
_TARGET_WHILE_OTHERS_WAIT = 0.95
_BACKLOG_RATIO = 0.5
_DITHER_RATIO = 0.25
_SHORTAGE_RATIO = 0.7
_PAIRS_WEIGHED = 20
_FEWEST_PAIRS = 2
# It moves when the mean of what was seen since it moved last lies so many standard errors off the target.
_STANDARD_ERRORS = 1.5
_PAIRS_EXPECTED = 4
# Down faster than up: above the knee less costs no throughput.
_GAIN_UP, _GAIN_DOWN = 0.6, 2.0
# A block ends when its throughput is worth something.
_LEAST_CALLS = 50
_LEAST_SECONDS = 0.1
_USED_RATIO = 0.9
# Blocks that hardly differ tell nothing.
_LEAST_STEP = 1.05
# Where next to nothing succeeds there is nothing to compare.
_HOPELESS_RATIO = 0.1


class Outcome(StrEnum):
    """What a call's end says of how many the server bears."""

    SUCCESS = "success"
    """It did its work."""
    IN_VAIN = "in vain"
    """Others were in its way: a deadlock, a serialization failure, a time limit."""
    SHORTAGE = "shortage"
    """The server had no connection or no memory left."""


@dataclass(frozen=True, slots=True)
class _Block:
    """What was seen while so many were let in."""

    mean_concurrency: float
    successes: float
    seconds: float
    waited_ratio: float

    @property
    def successes_per_second(self) -> float:
        return self.successes / self.seconds

    @property
    def is_backlogged(self) -> bool:
        return self.waited_ratio > _BACKLOG_RATIO


class ConcurrencyLimit:
    """A number of calls, moved towards the one with the best throughput for its latency.

    Parameters
    ----------
    initial : int
        Where to begin: what a forecast says (`Prior.begin`), or the number of cores.
    least, most : int
        What it stays within.
    seed : int
        Of the order of blocks.
    monotonic_seconds : callable
        The time.

    Attributes
    ----------
    limit : int
        How many to let in now.
    epoch : int
        How often a shortage has cut it: all that were in share one shortage.

    Notes
    -----
    Time is cut into blocks, in pairs: in one of each pair, drawn by lot, a quarter less is let in, in the other a
    quarter more. What that brings in throughput tells how much slower each call became: the elasticity of latency.
    Where it is small there is room; where it is one, calls only wait for each other inside of the server. Comparing
    neighbours cancels what drifts, and no baseline has to be remembered. A block in which the limit was not reached
    says nothing about it, so the limit does not grow while nobody needs it. Only successes are throughput, so that
    deadlocks and serialization failures count against concurrency; a shortage of connections or memory cuts it at
    once. While calls wait to be let in, throughput alone counts: a caller waits as long before the server as inside
    of it, and a limit that keeps latency low by serving less than is asked for lets its queue grow. Not thread safe.

    References
    ----------
    L. Kleinrock, "Power and Deterministic Rules of Thumb for Probabilistic Problems in Computer Communications",
    ICC 1979, and R. Gail, L. Kleinrock, "An Invariant Property of Computer Network Power", ICC 1981: power, and its
    exponent.
    Netflix concurrency-limits, issues 134 and 165: a limit that grows without being used, a baseline that drifts.
    """

    def __init__(
        self,
        initial: int = 8,
        *,
        least: int = 1,
        most: int = 1000,
        seed: int = 0,
        monotonic_seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 1 <= least <= initial <= most:
            raise UsageError(
                f"A limit of {initial!r} between {least!r} and {most!r} is none.",
                "Give 1 <= least <= initial <= most.",
            )
        self._least, self._most = least, most
        self._ceiling: int | None = None
        self._center = float(initial)
        self._now = monotonic_seconds
        self._random = random.Random(seed)
        self.epoch = 0
        self._expected_variance = 0.0
        self._elasticities: deque[float] = deque(maxlen=_PAIRS_WEIGHED)
        self._order = self._drawn()
        self._done: dict[bool, _Block] = {}
        self._begin()

    @property
    def settled(self) -> int:
        """The number that `limit` moves around."""
        return round(self._center)

    @property
    def elasticity(self) -> float | None:
        """By how many percent a call becomes slower where one percent more are let in; None where not known yet."""
        return statistics.fmean(self._elasticities) if self._elasticities else None

    @property
    def least(self) -> int:
        """What it never goes below."""
        return self._least

    def hold_below(self, ceiling: int | None) -> None:
        """Let in no more than `ceiling` from now on, while a forecast warns, say; None lifts it.

        What was learnt before is kept, and counts again when it is lifted.

        Raises
        ------
        UsageError
            If it is less than `least`.
        """
        if ceiling is not None and ceiling < self._least:
            raise UsageError(f"A ceiling of {ceiling!r} is below the least, {self._least}.", "Give more, or None.")
        if ceiling == self._ceiling:
            return
        self._ceiling = ceiling
        self._done.clear()
        self._order = self._drawn()
        self._begin()

    def take(
        self,
        concurrency: int,
        outcome: Outcome = Outcome.SUCCESS,
        *,
        epoch: int | None = None,
        is_awaited: bool = False,
    ) -> None:
        """Learn from a call that is over.

        Parameters
        ----------
        concurrency : int
            How many are at work when it ends, itself included.
        outcome : Outcome
        epoch : int, optional
            `epoch` when it was let in; now when absent.
        is_awaited : bool
            Whether another one waits for its place.
        """
        if outcome is Outcome.SHORTAGE:
            self._shrink_at_once(self.epoch if epoch is None else epoch)
            return
        if concurrency > self.limit:
            return  # more were let in before than are now
        self._calls += 1
        if self._calls <= self.limit:
            # those before were still at work
            self._began_seconds = self._now()
            return
        self._successes += outcome is Outcome.SUCCESS
        self._concurrency_total += concurrency
        self._awaited += is_awaited
        elapsed_seconds = self._now() - self._began_seconds
        if self._calls >= self.limit + max(_LEAST_CALLS, self.limit) and elapsed_seconds >= _LEAST_SECONDS:
            self._end_block(elapsed_seconds)

    def _begin(self) -> None:
        # kept, since it is asked for more often than it changes
        limit = self._high if self._order[0] else self._low
        self.limit = limit if self._ceiling is None else min(limit, self._ceiling)
        self._calls = self._successes = self._concurrency_total = self._awaited = 0
        self._began_seconds = self._now()

    @property
    def _low(self) -> int:
        return max(self._least, math.floor(self._center * (1 - _DITHER_RATIO)))

    @property
    def _high(self) -> int:
        return min(self._most, max(self._low + 1, math.ceil(self._center * (1 + _DITHER_RATIO))))

    def _drawn(self) -> list[bool]:
        first = self._random.random() < 0.5
        return [first, not first]

    def _end_block(self, elapsed_seconds: float) -> None:
        is_high, counted = self._order[0], self._calls - self.limit
        if self._successes < _HOPELESS_RATIO * counted:
            self._shrink_at_once(self.epoch)
            return
        self._order.pop(0)
        self._done[is_high] = _Block(
            self._concurrency_total / counted, max(self._successes, 0.5), elapsed_seconds, self._awaited / counted
        )
        if not self._order:
            self._weigh(self._done[False], self._done[True])
            self._done.clear()
            self._order = self._drawn()
        self._begin()

    def _weigh(self, low: _Block, high: _Block) -> None:
        is_used = high.mean_concurrency >= _USED_RATIO * self._high
        if not is_used or high.mean_concurrency < _LEAST_STEP * low.mean_concurrency:
            return
        step = math.log(high.mean_concurrency / low.mean_concurrency)
        of_throughput = math.log(high.successes_per_second / low.successes_per_second) / step
        self._elasticities.append(1.0 - of_throughput)
        self._expected_variance = (1.0 / high.successes + 1.0 / low.successes) / step**2
        if len(self._elasticities) >= _FEWEST_PAIRS:
            self._move_if_told(is_backlogged=low.is_backlogged and high.is_backlogged)

    def _move_if_told(self, *, is_backlogged: bool) -> None:
        target = _TARGET_WHILE_OTHERS_WAIT if is_backlogged else _TARGET_ELASTICITY
        room = max(-1.0, min(1.0, target - statistics.fmean(self._elasticities)))
        if abs(room) < _STANDARD_ERRORS * self._standard_error():
            return
        gain = _GAIN_UP if room > 0 or is_backlogged else _GAIN_DOWN
        moved = self._center * max(0.5, math.exp(gain * room))
        self._center = min(float(self._most), max(float(self._least), moved))
        self._elasticities.clear()

    def _standard_error(self) -> float:
        """Return how far off the mean may be: at first as if calls ended at random, then as they were seen to."""
        seen = len(self._elasticities) - 1
        seen_squares = seen * statistics.variance(self._elasticities)
        variance = (_PAIRS_EXPECTED * self._expected_variance + seen_squares) / (_PAIRS_EXPECTED + seen)
        return math.sqrt(variance / len(self._elasticities))

    def _shrink_at_once(self, epoch: int) -> None:
        if epoch < self.epoch:
            return  # of the same shortage
        self.epoch += 1
        self._center = max(float(self._least), self._center * _SHORTAGE_RATIO)
        self._elasticities.clear()
        self._done.clear()
        self._order = self._drawn()
        self._begin()
