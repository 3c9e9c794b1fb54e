"""How the offered load varies over a run: factors on its rate, as functions of the time since its start."""

from __future__ import annotations

import csv
import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.workload.plan import RateShape, constant

_DAY_SECONDS = 86_400.0
_MOST_POINTS = 1_000_000
_LARGEST_FACTOR = 1_000.0


@dataclass(frozen=True, slots=True)
class Steps:
    """Equal stretches of the run at one factor each, one after the other."""

    duration_seconds: float
    factors: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)

    def __call__(self, seconds: float) -> float:
        """Return the factor of that time."""
        place = int(len(self.factors) * seconds / self.duration_seconds)
        return self.factors[min(max(0, place), len(self.factors) - 1)]


@dataclass(frozen=True, slots=True)
class DailyCycle:
    """A sine that is lowest at the start: night, day, and night again."""

    period_seconds: float = _DAY_SECONDS
    least: float = 0.2

    def __call__(self, seconds: float) -> float:
        """Return the factor of that time."""
        return self.least + (1.0 - self.least) * (1.0 - math.cos(math.tau * seconds / self.period_seconds)) / 2.0


@dataclass(frozen=True, slots=True)
class Bursts:
    """Short times at the full rate, one in each period at a moment drawn by the seed, and a quieter time between."""

    seed: int
    period_seconds: float = 600.0
    burst_seconds: float = 30.0
    quiet: float = 0.3

    def __call__(self, seconds: float) -> float:
        """Return the factor of that time."""
        number = int(seconds // self.period_seconds)
        begins = _drawn(self.seed, number) * (self.period_seconds - self.burst_seconds)
        return 1.0 if begins <= seconds - number * self.period_seconds < begins + self.burst_seconds else self.quiet


@dataclass(frozen=True, slots=True)
class Ramp:
    """From little load to more than the server can do, evenly over the run."""

    duration_seconds: float
    first: float = 0.1
    last: float = 2.0

    def __call__(self, seconds: float) -> float:
        """Return the factor of that time."""
        return self.first + (self.last - self.first) * min(1.0, seconds / self.duration_seconds)


@dataclass(frozen=True, slots=True)
class RandomWalk:
    """A walk of the logarithm, in steps of a minute, kept between two factors; any moment can be drawn again."""

    seed: int
    least: float = 0.25
    most: float = 1.0
    step_seconds: float = 60.0
    sigma: float = 0.1

    def __call__(self, seconds: float) -> float:
        """Return the factor of that time."""
        walked = _walk(self.seed, int(seconds // self.step_seconds) // 1024 + 1)[int(seconds // self.step_seconds)]
        # reflected at both ends: a sawtooth of the free walk, so that it stays a walk
        width = math.log(self.most / self.least)
        folded = abs((self.sigma * walked + width / 2) % (2 * width) - width)
        return self.most * math.exp(-folded)


@dataclass(frozen=True, slots=True)
class Replay:
    """A recorded shape: points of time and factor, with straight lines between; begun again when it is over."""

    points: tuple[tuple[float, float], ...]

    def __call__(self, seconds: float) -> float:
        """Return the factor of that time."""
        first, last = self.points[0][0], self.points[-1][0]
        at = first + (seconds % (last - first) if last > first else 0.0)
        place = min(bisect_right(self.points, at, key=lambda point: point[0]), len(self.points) - 1)
        (before, low), (after, high) = self.points[max(0, place - 1)], self.points[place]
        return low if after == before else low + (high - low) * (at - before) / (after - before)


@dataclass(frozen=True, slots=True)
class Stages:
    """Stretches of any length at one factor each, one after the other; begun again when they are over.

    Parameters
    ----------
    stages : tuple of (float, float)
        Length in seconds, above 0, and factor.
    """

    stages: tuple[tuple[float, float], ...]

    def __call__(self, seconds: float) -> float:
        """Return the factor of that time."""
        ends = tuple(accumulate(length for length, _ in self.stages))
        place = bisect_right(ends, seconds % ends[-1])
        return self.stages[min(place, len(self.stages) - 1)][1]


SHAPES = ("constant", "steps", "daily", "bursts", "ramp", "walk")


def shape_named(wanted: str, *, duration_seconds: float, seed: int) -> RateShape:
    """Return the shape of that name, or the one that a CSV file has recorded.

    Parameters
    ----------
    wanted : str
        One of `SHAPES`, or the path of a CSV file of seconds and factor.
    duration_seconds : float
        Of the run.
    seed : int

    Raises
    ------
    UsageError
        If there is no such shape, or the file holds none.
    """
    shapes: dict[str, RateShape] = {
        "constant": constant,
        "steps": Steps(duration_seconds),
        "daily": DailyCycle(min(_DAY_SECONDS, duration_seconds)),
        "bursts": Bursts(seed, *((600.0, 30.0) if duration_seconds > 600.0 else (duration_seconds / 5, 1.0))),
        "ramp": Ramp(duration_seconds),
        "walk": RandomWalk(seed, step_seconds=min(60.0, duration_seconds / 10)),
    }
    return shapes.get(wanted) or read_shape(Path(wanted))


def read_shape(path: Path) -> Replay:
    """Return the shape in a CSV file of seconds and factor, with or without a line of names.

    Raises
    ------
    UsageError
        If it cannot be read, or a line is not what it should be; it names the line.
    """
    try:
        lines = [row for row in csv.reader(path.read_text(encoding="utf-8").splitlines()) if row]
    except (OSError, UnicodeError, csv.Error) as error:
        raise UsageError(
            f"The shape {str(path)!r} is neither known nor a file that can be read: {error}.",
            f"Choose one of {', '.join(SHAPES)}, or a CSV file of seconds,factor.",
        ) from error
    rows = lines[1:] if lines and not _is_number(lines[0][0]) else lines
    return Replay(_checked(path, [_point(path, row) for row in rows]))


def _point(path: Path, row: list[str]) -> tuple[float, float]:
    seconds, factor = (float(word) if _is_number(word) else math.nan for word in (*row, "", "")[:2])
    if len(row) != 2 or not (seconds >= 0 and 0 <= factor <= _LARGEST_FACTOR):
        raise UsageError(
            f"{path} has the line {','.join(row)!r:.60}.",
            f"Each line is seconds,factor: from 0 up, and from 0 to {_LARGEST_FACTOR:g}.",
        )
    return seconds, factor


def _checked(path: Path, points: list[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    if not 2 <= len(points) <= _MOST_POINTS or any(later[0] <= earlier[0] for earlier, later in pairwise(points)):
        raise UsageError(
            f"{path} has {len(points)} points, or its seconds do not grow.",
            f"Give from 2 to {_MOST_POINTS:,} lines of seconds,factor in the order of time.",
        )
    return tuple(points)


def _is_number(word: str) -> bool:
    try:
        return math.isfinite(float(word))
    except ValueError:
        return False


@cache
def _drawn(seed: int, number: int) -> float:
    return float(np.random.Generator(np.random.Philox(key=[seed, number])).random())


@cache
def _walk(seed: int, blocks: int) -> np.ndarray:
    """Return the sums of the first so many blocks of 1,024 steps, each drawn from a counter of its own."""
    draws = [np.random.Generator(np.random.Philox(key=[seed, block])).normal(size=1024) for block in range(blocks)]
    return np.cumsum(np.concatenate(draws))
