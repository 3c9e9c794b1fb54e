"""A recorded run, read without disturbing the runner that may be at it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from ml_postgres_optimization.soak.interval import Event, EventKind, Interval, IntervalState
from ml_postgres_optimization.soak.journal.description import RunDescription
from ml_postgres_optimization.soak.journal.journal_file import entries, read_description
from ml_postgres_optimization.soak.journal.records import Begun, Left, Measured


@dataclass(frozen=True, slots=True)
class RecordedIntervals:
    """The intervals of a run in the order of their numbers; those that nobody wrote are there, without a window.

    It can be gone through any number of times; each reads the journal anew, an interval at a time.
    """

    folder: Path
    description: RunDescription

    def __iter__(self) -> Iterator[Interval]:
        number, epoch, was_left, kills = -1, 0, True, 0
        events: tuple[Event, ...] = ()
        for record, entry in entries(self.folder, self.description.run):
            match entry:
                case Begun():
                    if epoch:
                        events = (*events, Event(EventKind.RUNNER, _words_of_return(was_left), entry.at))
                    kills += not was_left
                    was_left, epoch = False, entry.epoch
                case Left():
                    was_left = True
                    if entry.text:
                        events = (*events, Event(EventKind.RUNNER, entry.text, entry.at))
                case Measured(interval):
                    if interval.number <= number:  # none is counted twice
                        continue
                    # each kill took the interval that it came in; damage took what lay there
                    lost = interval.number if record.damaged_before else number + kills
                    yield from self._missing(number + 1, interval, lost_until=lost)
                    yield replace(interval, events=(*events, *interval.events))
                    number, kills, events = interval.number, 0, ()

    def _missing(self, first: int, following: Interval, *, lost_until: int) -> Iterator[Interval]:
        """Yield what nobody wrote: as lost up to a number, the rest as without a runner."""
        length = timedelta(seconds=self.description.interval_seconds)
        for number in range(first, following.number):
            began_at = self.description.started_at + number * length
            state = IntervalState.LOST if number <= lost_until else IntervalState.CLIENT_DOWN
            yield Interval(number, following.epoch, state, began_at, began_at + length)


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
