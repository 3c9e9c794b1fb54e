"""A recorded run, read without disturbing the runner that may be at it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from ml_postgres_optimization.soak.interval import Event, EventKind, Interval, IntervalState
from ml_postgres_optimization.soak.journal.description import RunDescription
from ml_postgres_optimization.soak.journal.framing import Framed
from ml_postgres_optimization.soak.journal.journal_file import earliest_snapshot, entries, read_description
from ml_postgres_optimization.soak.journal.records import Begun, Entry, Left, Measured
from ml_postgres_optimization.soak.journal.state import Ending, RunState


@dataclass(slots=True)
class _Assembly:
    """Puts the intervals of a run together as its entries are read; those that nobody wrote come without a window."""

    description: RunDescription
    number: int = -1
    epoch: int = 0
    was_left: bool = True
    began_number: int = -1
    lost: set[int] = field(default_factory=set)
    events: tuple[Event, ...] = ()

    def take(self, record: Framed, entry: Entry) -> Iterator[Interval]:
        """Yield the intervals that one more entry brings."""
        match entry:
            case Begun():
                self._return(entry)
            case Left():
                self.was_left = True
                if entry.text:
                    self.events = (*self.events, Event(EventKind.RUNNER, entry.text, entry.at))
                if entry.ending is Ending.FINISHED:
                    yield from self._tail()
            case Measured(interval):
                if interval.number <= self.number:  # none is counted twice
                    return
                events = (*self.events, *interval.events)
                yield from self._missing(entry, is_damaged=record.damaged_before > 0)
                yield replace(interval, events=events)
                after = range(interval.number + 1, entry.numbers[-1] + 1)
                yield from (self._unwritten(number, interval, counted_in=interval.number) for number in after)
                self.number, self.lost, self.events = entry.numbers[-1], set(), ()

    def _tail(self) -> Iterator[Interval]:
        """Yield what nobody wrote before the run's time was over."""
        last = self.description.intervals_total - 1
        for number in range(self.number + 1, last + 1):
            state = IntervalState.LOST if number in self.lost else IntervalState.CLIENT_DOWN
            events = self.events if number == last else ()
            yield Interval(number, self.epoch, state, *self._times(number), events=events)
        self.number = max(self.number, last)

    def _times(self, number: int) -> tuple[datetime, datetime]:
        length = timedelta(seconds=self.description.interval_seconds)
        began_at = self.description.started_at + number * length
        return began_at, began_at + length

    def _return(self, begun: Begun) -> None:
        """Take that another runner has begun; what became of the one before is known now."""
        if self.epoch:
            text = "A runner took the run up again."
            if not self.was_left:
                text = "The runner had been killed; another took the run up."
                # a kill took the interval that it came in, and all that was in memory only
                its_last = self.began_number if self.began_number > self.number else self.number + 1 + len(self.lost)
                self.lost |= {its_last, *range(self.number + 1, begun.lost_until + 1)}
            if begun.lost_until > self.number + 1:
                text += (
                    f" What it could not write, from interval {self.number + 1:,} to {begun.lost_until:,}, is lost."
                )
            self.events = (*self.events, Event(EventKind.RUNNER, text, begun.at))
        self.was_left, self.epoch, self.began_number = False, begun.epoch, begun.number

    def _missing(self, following: Measured, *, is_damaged: bool) -> Iterator[Interval]:
        """Yield what nobody wrote: as lost, as taken together with the following one, or as without a runner."""
        first_of_it, interval = following.numbers[0], following.interval
        for number in range(self.number + 1, interval.number):
            if number >= first_of_it:
                yield self._unwritten(number, interval, counted_in=interval.number)
            else:
                yield self._unwritten(number, interval, is_lost=is_damaged or number in self.lost)

    def _unwritten(
        self, number: int, beside: Interval, *, is_lost: bool = False, counted_in: int | None = None
    ) -> Interval:
        state = IntervalState.LOST if is_lost else IntervalState.CLIENT_DOWN
        if counted_in is not None:
            is_down = beside.state is IntervalState.SERVER_DOWN
            state = IntervalState.SERVER_DOWN if is_down else IntervalState.DEGRADED
        return Interval(number, beside.epoch, state, *self._times(number), counted_in=counted_in)


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
    is_recent : bool
        Whether to begin at the oldest snapshot that is kept, not with the run: three days take a minute to read.

    Attributes
    ----------
    so_far : Totals
        What the load had done before the first interval that is read.

    Raises
    ------
    JournalError
        As `read_run`.
    """

    def __init__(self, folder: Path, *, is_recent: bool = False) -> None:
        self.folder = folder
        self.description = read_description(folder)
        state, self._offset = earliest_snapshot(folder) if is_recent else (RunState(), 0)
        self.so_far = state.totals
        self._assembly = _Assembly(
            self.description,
            number=state.last_number,
            epoch=state.epoch,
            was_left=not state.epoch or state.ending is not None,
            began_number=state.began_number,
        )

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
