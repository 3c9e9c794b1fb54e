"""When operations are due, and which rows they touch: drawn from counters, so that any moment can be drawn again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml_postgres_optimization.workload.mix import Mix

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# The schedule is drawn piece by piece. 0.1 s is short against every change of rate we make, and long enough for
# the cost of a draw (0.2 ms) not to matter.
INTERVAL_SECONDS = 0.1
_GOLDEN_RATIO = (math.sqrt(5.0) - 1.0) / 2.0
_MAXIMUM_AMOUNT = 1_000


@dataclass(frozen=True, slots=True)
class Draws:
    """Operations in columns of one length.

    Parameters
    ----------
    kind_index : ndarray of int64, shape (n_operations,)
        Position in `Mix.names`.
    key, other_key : ndarray of int64, shape (n_operations,)
        Accounts, from 1; the two differ wherever there is more than one account.
    amount : ndarray of int64, shape (n_operations,)
        From 1 to 1,000.
    """

    kind_index: Integers
    key: Integers
    other_key: Integers
    amount: Integers

    def rows(self) -> Iterator[tuple[int, int, int, int]]:
        """Yield kind index, key, other key and amount of one operation after the other."""
        return zip(
            self.kind_index.tolist(),
            self.key.tolist(),
            self.other_key.tolist(),
            self.amount.tolist(),
            strict=True,
        )


class ZipfKeys:
    """Keys 1 to `count`, of which the k-th most popular comes with probability proportional to k^-exponent.

    Parameters
    ----------
    count : int
        How many keys, at least 1 and at most 2³¹.
    exponent : float
        0 (all alike) or more.

    Notes
    -----
    Exact for any exponent, without a table: rejection-inversion. Ranks are scattered over the keys by a
    multiplication modulo `count` with a number near the golden ratio, so that hot rows do not share pages.

    References
    ----------
    W. Hörmann, G. Derflinger, "Rejection-inversion to generate variates from monotone discrete distributions",
    ACM TOMACS 6(3), 1996. Three-distance theorem: D. Knuth, TAOCP vol. 3, section 6.4.
    """

    def __init__(self, count: int, exponent: float) -> None:
        if not (1 <= count <= 2**31 and exponent >= 0):
            raise ValueError(f"no Zipf law over {count} keys with exponent {exponent}")
        self.count = count
        self.exponent = exponent
        self._stride = _coprime_near(count, _GOLDEN_RATIO)
        self._from = float(self._area(np.array(1.5))) - 1.0
        self._to = float(self._area(np.array(count + 0.5)))
        self._sure = 2.0 - float(self._area_inverse(self._area(np.array(2.5)) - 2.0**-exponent))

    def draw(self, rng: np.random.Generator, size: int) -> Integers:
        """Draw `size` keys."""
        return self.key_of(self.draw_ranks(rng, size))

    def draw_ranks(self, rng: np.random.Generator, size: int) -> Integers:
        """Draw `size` ranks, 1 for the most popular key."""
        ranks = np.empty(size, dtype=np.int64)
        missing = np.arange(size)
        while missing.size:
            area = self._to + rng.random(missing.size) * (self._from - self._to)
            point = self._area_inverse(area)
            rank = np.clip(np.rint(point), 1, self.count)
            accepted = (rank - point <= self._sure) | (area >= self._area(rank + 0.5) - rank**-self.exponent)
            ranks[missing[accepted]] = rank[accepted]
            missing = missing[~accepted]
        return ranks

    def key_of(self, rank: Integers) -> Integers:
        """Return the key of a rank: a permutation of 1 to `count`."""
        return (rank - 1) * self._stride % self.count + 1

    def _area(self, point: Floats) -> Floats:
        """Return the integral of x^-exponent from 1 to `point`."""
        log = np.log(point)
        rest = 1.0 - self.exponent
        return np.expm1(rest * log) / rest if rest else log

    def _area_inverse(self, area: Floats) -> Floats:
        rest = 1.0 - self.exponent
        # rounding may carry the product a hair below -1, where the logarithm ends
        log = np.log1p(np.maximum(area * rest, -1.0 + 1e-15)) / rest if rest else area
        return np.exp(log)


def _coprime_near(count: int, ratio: float) -> int:
    """Return a number near `ratio` times `count` that shares no divisor with it."""
    candidate = max(1, round(count * ratio))
    while math.gcd(candidate, count) != 1:
        candidate += 1
    return candidate


@dataclass(frozen=True, slots=True)
class Stream:
    """The operations of one client process, as a function of counters: the same counter, the same operations.

    Parameters
    ----------
    seed : int
    worker : int
        Number of the client process.
    keys : ZipfKeys
    """

    seed: int
    worker: int
    keys: ZipfKeys

    def interval(self, number: int, rate_per_second: float, mix: Mix) -> tuple[Floats, Draws]:
        """Draw a Poisson process of `rate_per_second` over interval `number`.

        Returns
        -------
        due_seconds : ndarray of float64, shape (n_operations,)
            Ascending, from the start of the whole schedule.
        draws : Draws
        """
        rng = np.random.default_rng([self.seed, self.worker, 0, number])
        count = int(rng.poisson(rate_per_second * INTERVAL_SECONDS))
        due_seconds = (number + np.sort(rng.random(count))) * INTERVAL_SECONDS
        return due_seconds, self._draw(rng, count, mix)

    def block(self, number: int, size: int, mix: Mix) -> Draws:
        """Draw the operations of block `number`, for work that no clock makes due; full rounds of the mix's deck."""
        rng = np.random.default_rng([self.seed, self.worker, 1, number])
        rounds = -(-size // len(mix.deck)) if mix.deck else 0
        return self._draw(rng, rounds * len(mix.deck) or size, mix, dealt=_dealt(rng, mix.deck, rounds))

    def _draw(self, rng: np.random.Generator, count: int, mix: Mix, *, dealt: Integers | None = None) -> Draws:
        key = self.keys.draw(rng, count)
        other = self.keys.draw(rng, count)
        return Draws(
            kind_index=_drawn_kinds(rng, count, mix) if dealt is None else dealt,
            key=key,
            other_key=np.where(other == key, other % self.keys.count + 1, other),
            amount=rng.integers(1, _MAXIMUM_AMOUNT, count, endpoint=True),
        )


def _drawn_kinds(rng: np.random.Generator, count: int, mix: Mix) -> Integers:
    cumulative = np.cumsum(mix.shares)
    # divided by the last, so that rounding leaves no room above it for a kind without weight
    return np.searchsorted(cumulative / cumulative[-1], rng.random(count), side="right").astype(np.int64)


def _dealt(rng: np.random.Generator, deck: Sequence[int], rounds: int) -> Integers | None:
    """Deal so many rounds, shuffled one by one; None where the kinds have no deck."""
    if not deck:
        return None
    return np.concatenate([rng.permutation(np.array(deck, dtype=np.int64)) for _ in range(rounds)])
