"""A recorded run, read without disturbing the runner that may be at it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from ml_postgres_optimization.soak.interval import Event, EventKind, Interval, IntervalState
from ml_postgres_optimization.soak.journal.description import RunDescription
from ml_postgres_optimization.soak.journal.framing import Framed
from ml_postgres_optimization.soak.journal.journal_file import entries, read_description
from ml_postgres_optimization.soak.journal.records import Begun, Entry, Left, Measured


@dataclass(slots=True)
class _Assembly:
    """Puts the intervals of a run together as its entries are read; those that nobody wrote come without a window."""

    description: RunDescription
    number: int = -1
    epoch: int = 0
    was_left: bool = True
    kills: int = 0
    events: tuple[Event, ...] = ()

    def take(self, record: Framed, entry: Entry) -> Iterator[Interval]:
        """Yield the intervals that one more entry brings."""
        match entry:
            case Begun():
                if self.epoch:
                    self.events = (*self.events, Event(EventKind.RUNNER, _words_of_return(self.was_left), entry.at))
                self.kills += not self.was_left
                self.was_left, self.epoch = False, entry.epoch
            case Left():
                self.was_left = True
                if entry.text:
                    self.events = (*self.events, Event(EventKind.RUNNER, entry.text, entry.at))
            case Measured(interval):
                if interval.number <= self.number:  # none is counted twice
                    return
                # each kill took the interval that it came in; damage took what lay there
                lost = interval.number if record.damaged_before else self.number + self.kills
                yield from self._missing(self.number + 1, interval, lost_until=lost)
                yield replace(interval, events=(*self.events, *interval.events))
                self.number, self.kills, self.events = interval.number, 0, ()

    def _missing(self, first: int, following: Interval, *, lost_until: int) -> Iterator[Interval]:
        """Yield what nobody wrote: as lost up to a number, the rest as without a runner."""
        length = timedelta(seconds=self.description.interval_seconds)
        for number in range(first, following.number):
            began_at = self.description.started_at + number * length
            state = IntervalState.LOST if number <= lost_until else IntervalState.CLIENT_DOWN
            yield Interval(number, following.epoch, state, began_at, began_at + length)


@dataclass(frozen=True, slots=True)
class RecordedIntervals:
    """The intervals of a run in the order of their numbers; those that nobody wrote are there, without a window.

    It can be gone through any number of times; each reads the journal anew, an interval at a time.
    """

    folder: Path
    description: RunDescription

    def __iter__(self) -> Iterator[Interval]:
        assembly = _Assembly(self.description)
        for record, entry in entries(self.folder, self.description.run):
            yield from assembly.take(record, entry)


class FollowedRun:
    """A run whose journal is read on and on, while somebody else writes it.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    JournalError
        As `read_run`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.description = read_description(folder)
        self._assembly = _Assembly(self.description)
        self._offset = 0

    def news(self) -> Iterator[Interval]:
        """Yield the intervals that have come since the last call; a record that is being written waits for the next.

        Raises
        ------
        OSError
            If the journal cannot be read any more.
        """
        for record, entry in entries(self.folder, self.description.run, self._offset):
            self._offset = record.end
            yield from self._assembly.take(record, entry)


def _words_of_return(was_left: bool) -> str:
    return "A runner took the run up again." if was_left else "The runner had been killed; another took the run up."


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """A run as it is recorded.

    Parameters
    ----------
    folder : Path
    description : RunDescription
    intervals : RecordedIntervals
    """

    folder: Path
    description: RunDescription
    intervals: RecordedIntervals


def read_run(folder: Path) -> RecordedRun:
    """Return the description of the run in `folder`, and its intervals, which are read as they are asked for.

    Raises
    ------
    JournalError
        If it is not there, damaged at its very beginning, another run's, or of another format.
    """
    description = read_description(folder)
    return RecordedRun(folder, description, RecordedIntervals(folder, description))
