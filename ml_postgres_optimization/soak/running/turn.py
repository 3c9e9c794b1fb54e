"""Whose an interval is: a runner begins where none was, and says which ones it took together."""

from __future__ import annotations

from ml_postgres_optimization.soak.journal import RunState
from ml_postgres_optimization.soak.running.timeline import Timeline
from ml_postgres_optimization.telemetry import BootClock


def wait_for_turn(state: RunState, timeline: Timeline, clock: BootClock) -> None:
    """Wait until no runner before could have been in the interval of this moment; then the load may begin."""
    taken = state.taken_until
    while timeline.number <= taken:
        clock.sleep(timeline.monotonic_end(taken) - clock.monotonic_seconds())


class Turn:
    """The numbers that a runner's windows stand for, one window without a gap after the other.

    Parameters
    ----------
    timeline : Timeline
    intervals_total : int
        Of the run.

    Notes
    -----
    A runner that was held up, by a signal or by a disk or server that did not answer, has seen nothing of the
    intervals that passed meanwhile. Its load went on, and the next window has all of it. Not so where the machine
    slept, or the load rested: then nothing was asked of the server.
    """

    def __init__(self, timeline: Timeline, intervals_total: int) -> None:
        self._timeline = timeline
        self._intervals_total = intervals_total
        self._next: int | None = None

    @property
    def is_last(self) -> bool:
        """Whether the run's last interval is over, or under way."""
        return self._timeline.number >= self._intervals_total

    def span(self, number: int, *, is_broken: bool) -> tuple[int, int]:
        """Return the first and last number of a window that ends now; of its own only, where it was broken off."""
        if is_broken:
            self._next = None
            return number, number
        first = number if self._next is None else min(number, self._next)
        last = max(number, min(self._timeline.number, self._intervals_total) - 1)
        self._next = last + 1
        return first, last

    def rest(self) -> None:
        """Take that the load rests: what passes until the next window was in none."""
        self._next = None
