"""Records on their way to a disk that may be full for a while."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from datetime import datetime

from ml_postgres_optimization.soak.interval import Event, EventKind
from ml_postgres_optimization.soak.journal import Measured, RunJournal
from ml_postgres_optimization.telemetry import Clock

# An hour of 10-second intervals, some 100 MB of windows at most; beyond it the load rests until there is room.
MOST_WAITING = 360
_LOOK_SECONDS = 1.0


class Store:
    """Write measured intervals to the journal; keep them in memory as long as the disk does not take them.

    Parameters
    ----------
    journal : RunJournal
    most_waiting : int
        Intervals that may wait.
    """

    def __init__(self, journal: RunJournal, most_waiting: int = MOST_WAITING) -> None:
        self._journal = journal
        self._most_waiting = most_waiting
        self._waiting: deque[Measured] = deque()
        self._since: datetime | None = None
        self._refusal: OSError | None = None

    @property
    def is_full(self) -> bool:
        """Whether no more may wait."""
        return len(self._waiting) >= self._most_waiting

    def add(self, measured: Measured) -> Event | None:
        """Take an interval; return what is to be told where the disk has begun to refuse, or takes it again."""
        self._waiting.append(measured)
        return self.flush(measured.interval.ended_at)

    @property
    def waiting(self) -> range:
        """The numbers of what is in memory only, from the first to the last; empty where all is on disk."""
        if not self._waiting:
            return range(0)
        return range(self._waiting[0].numbers[0], self._waiting[-1].numbers[-1] + 1)

    def flush_within(self, seconds: float, clock: Clock) -> OSError | None:
        """Write what waits, and try again for so long where there is no room; Ctrl-C ends the waiting.

        Returns the disk's last refusal where something still waits: that is lost with the process.
        """
        until = clock.monotonic_seconds() + seconds
        with suppress(KeyboardInterrupt):
            self.flush(clock.now())
            while self._waiting and clock.monotonic_seconds() < until:
                clock.sleep(_LOOK_SECONDS)
                self.flush(clock.now())
        return self._refusal if self._waiting else None

    def flush(self, now: datetime) -> Event | None:
        """Write what waits; return as `add`."""
        try:
            while self._waiting:
                self._journal.append(self._waiting[0])
                self._waiting.popleft()
        except OSError as error:
            self._refusal = error
            self._journal.note_unwritten(self._waiting[-1].numbers[-1])
            if self._since is not None:
                return None
            self._since = now
            return Event(
                EventKind.DISK, f"The journal cannot be written ({error.strerror}); the run goes on in memory.", now
            )
        since, self._since = self._since, None
        if since is None:
            return None
        return Event(EventKind.DISK, "The journal could not be written, and is complete again.", since, now)
