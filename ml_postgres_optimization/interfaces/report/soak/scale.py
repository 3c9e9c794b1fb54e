"""From values to places in a plot, and the labels at its edges."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

# A plot is drawn on a field of this size and stretched to whatever room there is; its words stand beside it as HTML.
WIDTH, HEIGHT = 1000.0, 100.0
_HOURS = (1 / 60, 1 / 12, 1 / 6, 0.25, 0.5, 1, 2, 3, 6, 12, 24, 48, 96, 168, 336)
_MOST_TIME_LABELS = 12
_MOST_VALUE_LABELS = 4


@dataclass(frozen=True, slots=True)
class ValueScale:
    """A vertical axis.

    Parameters
    ----------
    low, high : float
        Its ends.
    ticks : tuple of float
    is_logarithmic : bool
    """

    low: float
    high: float
    ticks: tuple[float, ...]
    is_logarithmic: bool = False

    def places(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how far from the top of the field each value is, 0 to `HEIGHT`; NaN stays NaN."""
        low, high = self.low, self.high
        if self.is_logarithmic:
            values, low, high = np.log(np.maximum(values, self.low)), math.log(low), math.log(high)
        return HEIGHT * (1 - (values - low) / (high - low))


def linear_scale(values: NDArray[np.float64], *, from_zero: bool = True) -> ValueScale:
    """Return an axis over all finite values, with round ends."""
    finite = values[np.isfinite(values)]
    low = 0.0 if from_zero or not finite.size else float(finite.min())
    high = float(finite.max()) if finite.size else 1.0
    if not from_zero:
        # little noise must not look like a storm: the axis spans at least a tenth of the level
        room = max(0.0, 0.1 * abs(high) - (high - low)) / 2
        low, high = low - room, high + room
    if high <= low:
        high = low + 1.0
    step = _round_step((high - low) / _MOST_VALUE_LABELS)
    first, last = math.floor(low / step), math.ceil(high / step - 1e-9)
    ticks = tuple(step * number for number in range(first, last + 1))
    return ValueScale(ticks[0], ticks[-1], ticks)


def logarithmic_scale(values: NDArray[np.float64]) -> ValueScale:
    """Return an axis of decades, halved where there is room, over all positive values."""
    positive = values[np.isfinite(values) & (values > 0)]
    if not positive.size:
        return ValueScale(1e-3, 1.0, (1e-3, 1e-2, 1e-1, 1.0), is_logarithmic=True)
    low, high = float(positive.min()), float(positive.max())
    for steps in ((1, 2, 5), (1, 3), (1,)):
        powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
        marks = [step * 10.0**power for power in powers for step in steps]
        below = max(mark for mark in marks if mark <= low * (1 + 1e-9))
        above = min(mark for mark in marks if mark >= high * (1 - 1e-9))
        ticks = tuple(mark for mark in marks if below <= mark <= above)
        if len(ticks) <= 2 * _MOST_VALUE_LABELS or steps == (1,):
            break
    return ValueScale(ticks[0], ticks[-1] if len(ticks) > 1 else ticks[0] * 10, ticks, is_logarithmic=True)


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * nice for nice in (1, 2, 5, 10) if step <= power * nice * (1 + 1e-9))


@dataclass(frozen=True, slots=True)
class TimeScale:
    """The horizontal axis that all plots of a page share.

    Parameters
    ----------
    started_at : datetime
    seconds : float
        How long it is.
    """

    started_at: datetime
    seconds: float

    def share(self, seconds: float) -> float:
        """Return where in the plot a moment lies, 0 to 1; what lies outside is at its edge."""
        return min(1.0, max(0.0, seconds / self.seconds))

    def share_at(self, at: datetime) -> float:
        """Return the same for a time."""
        return self.share((at - self.started_at).total_seconds())

    def labels(self) -> list[tuple[float, str]]:
        """Return where round times lie, 0 to 1, and what to write there: the hour, or the date at midnight."""
        hours = next(
            step for step in (*_HOURS, self.seconds / 3600) if self.seconds / 3600 / step <= _MOST_TIME_LABELS
        )
        midnight = self.started_at.replace(hour=0, minute=0, second=0, microsecond=0)
        since = (self.started_at - midnight).total_seconds() / 3600
        first = math.ceil(since / hours - 1e-9)
        total = int((since + self.seconds / 3600) / hours + 1e-9)
        times = (midnight + timedelta(hours=hours * number) for number in range(first, total + 1))
        return [(self.share_at(at), _time_label(at)) for at in times]


def _time_label(at: datetime) -> str:
    return f"{at.day} {at:%b}" if (at.hour, at.minute) == (0, 0) else f"{at:%H:%M}"


def segments(values: NDArray[np.float64]) -> Sequence[slice]:
    """Return the stretches without a gap."""
    there = np.concatenate(([False], np.isfinite(values), [False]))
    edges = np.flatnonzero(there[1:] != there[:-1])
    return [slice(int(begin), int(end)) for begin, end in zip(edges[::2], edges[1::2], strict=True)]


Shown = Callable[[float], str]
