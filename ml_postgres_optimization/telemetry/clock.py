"""The time as an argument, so that tests can own it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Tell the time, and let it pass."""

    def now(self) -> datetime:
        """Wall time, in UTC."""

    def monotonic_seconds(self) -> float:
        """Seconds that never go back; the same for every process of one machine."""

    def sleep(self, seconds: float) -> None:
        """Wait for `seconds`, not at all when negative."""


class BootClock(Clock, Protocol):
    """A clock that also knows how long the machine has slept."""

    def boottime_seconds(self) -> float:
        """Seconds since the machine was started, those in which it slept included."""


class SystemClock:
    """The clock of this machine."""

    def now(self) -> datetime:
        """Return wall time, in UTC."""
        return datetime.now(UTC)

    def monotonic_seconds(self) -> float:
        """Return ``CLOCK_MONOTONIC``, which all processes of a Linux machine share."""
        return time.monotonic()

    def boottime_seconds(self) -> float:
        """Return ``CLOCK_BOOTTIME``; where there is none, monotonic time, by which no sleep is seen."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait for `seconds`."""
        time.sleep(max(0.0, seconds))


class VirtualClock:
    """A clock that only moves when told to: for tests and simulations.

    Parameters
    ----------
    start : datetime, optional
        Wall time at the start; an aware one.

    Examples
    --------
    >>> clock = VirtualClock()
    >>> clock.sleep(90)
    >>> clock.monotonic_seconds()
    90.0
    """

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        self._elapsed_seconds = 0.0
        self._slept_seconds = self._stepped_seconds = 0.0

    def now(self) -> datetime:
        """Return the start plus all that was slept."""
        return self._start + timedelta(seconds=self._elapsed_seconds + self._slept_seconds + self._stepped_seconds)

    def monotonic_seconds(self) -> float:
        """Return all that was slept."""
        return self._elapsed_seconds

    def boottime_seconds(self) -> float:
        """Return the same, with the time in which the machine was suspended."""
        return self._elapsed_seconds + self._slept_seconds

    def suspend(self, seconds: float) -> None:
        """Let the machine sleep: wall time and boot time go on, and monotonic time does not."""
        self._slept_seconds += seconds

    def step(self, seconds: float) -> None:
        """Set the wall clock forward, or back where negative."""
        self._stepped_seconds += seconds

    def sleep(self, seconds: float) -> None:
        """Move the time forward at once."""
        self._elapsed_seconds += max(0.0, seconds)
