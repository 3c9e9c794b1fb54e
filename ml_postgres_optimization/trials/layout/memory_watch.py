"""Whether the memory of the server's machine lasts while a trial runs."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from ml_postgres_optimization.telemetry import Clock, MemoryReading
from ml_postgres_optimization.trials.verdict import Guards

ReadMemory = Callable[[], MemoryReading | None]
# Readings of so long tell how fast memory goes, if there are so many: a look a second, for five of them.
_LATELY_SECONDS = 10.0
_FEWEST = 6
_CONFIDENCE = 0.9
_MIB = 1024**2


def memory_unseen() -> None:
    """Stand in for a reading where the server's machine is not seen."""


class MemoryRunsOut(Exception):
    """The trial has to end now, whatever its blocks say; the text is a sentence for the user."""


class MemoryWatch:
    """Look at what memory is left, about once a second, and end the trial before something is killed.

    It ends where less is left than `Guards.memory_ratio` of what there was at the trial's start, or where, at the
    pace of the last seconds, nothing would be left in less than `Guards.memory_seconds`. Whoever takes it: arms side
    by side share it, and a session may keep what it took. The machine's own page cache counts as left, so what is
    read or written is no fall.

    Parameters
    ----------
    read : callable
        Returns the `MemoryReading` of the server's machine, or None where that is not seen: then this is silent.
    clock : Clock
    guards : Guards

    Notes
    -----
    The pace is the least that the readings still allow (the upper end of the interval of Theil and Sen's slope, six
    readings or more): a single sort that takes its memory at once and keeps it is a step, and steps do not go on.
    Shared memory that is touched for the first time is no fall here either, since its size was checked beforehand.

    References
    ----------
    P. K. Sen, "Estimates of the regression coefficient based on Kendall's tau", JASA 63 (1968), pp. 1379-1389.
    """

    def __init__(self, read: ReadMemory, clock: Clock, guards: Guards) -> None:
        self._read = read
        self._clock = clock
        self._guards = guards
        self._first_bytes: float | None = None
        self._latest: deque[tuple[float, MemoryReading]] = deque()

    def look(self) -> None:
        """Take a reading.

        Raises
        ------
        MemoryRunsOut
        """
        reading, now_seconds = self._read(), self._clock.monotonic_seconds()
        if reading is None:
            return
        if self._first_bytes is None:
            self._first_bytes = reading.left_bytes
        self._latest.append((now_seconds, reading))
        while self._latest[0][0] < now_seconds - _LATELY_SECONDS:
            self._latest.popleft()
        self._see_level(reading.left_bytes, self._first_bytes)
        self._see_pace(reading.left_bytes)

    def forget_pace(self) -> None:
        """Begin anew, as what is in force has changed: what a restart gives back or takes is no pace."""
        self._latest.clear()

    def _see_level(self, left_bytes: float, first_bytes: float) -> None:
        if left_bytes < self._guards.memory_ratio * first_bytes:
            raise MemoryRunsOut(
                f"{left_bytes / _MIB:,.0f} MB of memory are left, against {first_bytes / _MIB:,.0f} MB at the start "
                f"of the trial, the limit being {self._guards.memory_ratio:.0%} of that"
            )

    def _see_pace(self, left_bytes: float) -> None:
        lost_per_second = self._lost_bytes_per_second()
        seconds = left_bytes / lost_per_second if lost_per_second > 0 else math.inf
        if seconds < self._guards.memory_seconds:
            raise MemoryRunsOut(
                f"memory goes at {lost_per_second / _MIB:,.0f} MB a second: the {left_bytes / _MIB:,.0f} MB that are "
                f"left would last {seconds:.0f} s, the limit being {self._guards.memory_seconds:g} s"
            )

    def _lost_bytes_per_second(self) -> float:
        if len(self._latest) < _FEWEST:
            return 0.0
        from scipy.stats import theilslopes  # type: ignore[import-untyped]  # noqa: PLC0415  (a second)

        seconds, readings = zip(*self._latest, strict=True)
        apart_from_shared = [reading.left_bytes + reading.shared_bytes for reading in readings]
        _, _, _, least_fall = theilslopes(apart_from_shared, seconds, _CONFIDENCE)
        return -float(least_fall)
