"""The journal of a soak: a record for every interval, on disk before the next, so that a kill loses one at most."""

from ml_postgres_optimization.soak.journal.description import RunDescription
from ml_postgres_optimization.soak.journal.folder import KnownRun, abandon, chosen_run, run_of_process, runs_in
from ml_postgres_optimization.soak.journal.journal_file import FILE, RunJournal, recover
from ml_postgres_optimization.soak.journal.reading import FollowedRun, RecordedRun, read_run
from ml_postgres_optimization.soak.journal.records import Begun, Left, Measured
from ml_postgres_optimization.soak.journal.state import ClockMark, Ending, RunState, Totals

__all__ = [
    "FILE",
    "Begun",
    "ClockMark",
    "Ending",
    "FollowedRun",
    "KnownRun",
    "Left",
    "Measured",
    "RecordedRun",
    "RunDescription",
    "RunJournal",
    "RunState",
    "Totals",
    "abandon",
    "chosen_run",
    "read_run",
    "recover",
    "run_of_process",
    "runs_in",
]
