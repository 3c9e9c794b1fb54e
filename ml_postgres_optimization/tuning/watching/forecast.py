"""Look ahead, and say when the objective is about to be broken."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

from ml_postgres_optimization.tuning.watching.reading import Reading

# Ten minutes of ten seconds each, as medians of five: good and bad moments last for a minute or so, and would pass
# for a trend in less. Three minutes window by window, under noise of 10 % that lasts for a minute and a limit of 1.5
# times the usual, foretold 13 breaches a day that never came; benchmarks/watching.py says what this one does.
TREND_WINDOWS = 60
_BLOCK_WINDOWS = 5
_FEWEST_WINDOWS = 4 * _BLOCK_WINDOWS
_CONFIDENCE = 0.99
_BROKEN_WINDOWS = 6


@dataclass(frozen=True, slots=True)
class Outlook:
    """What the response is expected to be.

    Parameters
    ----------
    seconds : float
        The middle of the forecast.
    horizon_seconds : float
        How far ahead.
    source : str
        Who says so, for the user.
    """

    seconds: float
    horizon_seconds: float
    source: str

    def __str__(self) -> str:
        return f"{self.seconds * 1000:.2f} ms in {self.horizon_seconds:.0f} s by the {self.source}"


def trend(readings: Sequence[Reading], horizon_seconds: float) -> Outlook | None:
    """Carry the last windows on by the median of their slopes; where these show no rise or fall, by their level.

    The logarithm of the response is what is carried on. Windows that stalled do not bend it.

    Parameters
    ----------
    readings : sequence of Reading
        None of them idle, the latest last; the last 60 count, and fewer than 20 tell nothing.
    horizon_seconds : float

    Returns
    -------
    Outlook or None

    References
    ----------
    P. K. Sen, Estimates of the regression coefficient based on Kendall's tau, JASA 63 (1968).
    """
    last = readings[-TREND_WINDOWS:]
    if len(last) < _FEWEST_WINDOWS:
        return None
    from scipy.stats import theilslopes  # type: ignore[import-untyped]  # noqa: PLC0415  (a second)

    blocks = [
        last[begin : begin + _BLOCK_WINDOWS] for begin in range(len(last) % _BLOCK_WINDOWS, len(last), _BLOCK_WINDOWS)
    ]
    levels = [median(math.log(reading.response_seconds) for reading in block) for block in blocks]
    times = [fmean(reading.at_seconds - last[-1].at_seconds for reading in block) for block in blocks]
    slope, _, low, high = theilslopes(levels, times, _CONFIDENCE)
    if low > 0 or high < 0:
        # from where it is now, as a rise that has just begun is far above the line through all of it
        level = levels[-1] + slope * (horizon_seconds - times[-1])
        return Outlook(math.exp(level), horizon_seconds, "trend of the last windows")
    level = fmean(levels[-2:])
    return Outlook(math.exp(level), horizon_seconds, "level of the last windows, which show no trend")


@dataclass(frozen=True, slots=True)
class Threat:
    """The objective is broken, or is going to be.

    Parameters
    ----------
    is_broken : bool
    message : str
        With figures.
    """

    is_broken: bool
    message: str


class LimitWatch:
    """Say when the response is beyond its limit, or is forecast to be.

    What counts is the middle of a forecast, in three windows in a row. Its upper end would be beyond a limit that is
    well kept as often as the interval is wrong there: in one window of 20 with an interval of 90 %, which at 10 s a
    window is a trial every three minutes for nothing.

    Parameters
    ----------
    limit_seconds : float
        That must not be exceeded; infinite where nobody states one.
    windows : int
        How many forecasts in a row must be beyond it.
    """

    def __init__(self, limit_seconds: float, windows: int = 3) -> None:
        self._limit_seconds = limit_seconds
        self._windows = windows
        self._beyond = 0

    def see(self, readings: Sequence[Reading], outlooks: Sequence[Outlook]) -> Threat | None:
        """Take the windows so far, none of them idle, and what is forecast after the last one."""
        worst = max(outlooks, key=lambda outlook: outlook.seconds, default=None)
        is_beyond = worst is not None and worst.seconds > self._limit_seconds
        self._beyond = self._beyond + 1 if is_beyond else 0
        limit = f"the limit of {self._limit_seconds * 1000:g} ms"
        last = [reading.response_seconds for reading in readings[-_BROKEN_WINDOWS:]]
        if len(last) == _BROKEN_WINDOWS and median(last) > self._limit_seconds:
            return Threat(True, f"{limit} is exceeded: {median(last) * 1000:.2f} ms in the last {len(last)} windows")
        if worst is not None and self._beyond >= self._windows:
            return Threat(False, f"{limit} will be exceeded: {worst}, now {last[-1] * 1000:.2f} ms")
        return None
