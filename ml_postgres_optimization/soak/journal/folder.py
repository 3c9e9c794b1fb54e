"""The runs of one server: each in a folder of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ml_postgres_optimization.errors import GenesisError, UsageError
from ml_postgres_optimization.safety.journal.disk import LOCK_FILE, is_in_use
from ml_postgres_optimization.soak.journal.description import RunDescription
from ml_postgres_optimization.soak.journal.journal_file import FILE, RunJournal, recover
from ml_postgres_optimization.soak.journal.records import Left
from ml_postgres_optimization.soak.journal.state import Ending, RunState
from ml_postgres_optimization.telemetry import Clock

_OVER = (Ending.FINISHED, Ending.ABANDONED, Ending.VIOLATED)


@dataclass(frozen=True, slots=True)
class KnownRun:
    """A run that is recorded here.

    Parameters
    ----------
    folder : Path
    description : RunDescription or None
        None where its journal cannot be read.
    state : RunState
    is_running : bool
        Whether a runner is at it.
    trouble : str
        Why its journal cannot be read.
    """

    folder: Path
    description: RunDescription | None
    state: RunState
    is_running: bool
    trouble: str = ""

    @property
    def name(self) -> str:
        """The run's name."""
        return self.folder.name

    @property
    def can_go_on(self) -> bool:
        """Whether it is neither over nor running."""
        return self.description is not None and not self.is_running and self.state.ending not in _OVER

    @property
    def status(self) -> str:
        """A word or two for readers."""
        if self.description is None:
            return "unreadable"
        if self.is_running:
            return "running"
        return "killed" if self.state.ending is None else self.state.ending.value

    @property
    def lock(self) -> Path:
        """The file that the runner at work has locked."""
        return self.folder / LOCK_FILE

    @property
    def process_id(self) -> int | None:
        """The process that says it has, or had, the run; None where none says so."""
        return _written_in(self.lock)


def runs_in(directory: Path) -> list[KnownRun]:
    """Return the runs whose folders lie in `directory`, the oldest first."""
    return [_known(path.parent) for path in sorted(directory.glob(f"*/{FILE}"))]


def run_of_process(directory: Path, process_id: int) -> KnownRun | None:
    """Return the run in `directory` whose last runner is, or was, that process; None where there is none."""
    locks = (lock for lock in directory.glob(f"*/{LOCK_FILE}") if _written_in(lock) == process_id)
    return next((_known(lock.parent) for lock in locks), None)


def chosen_run(known: Iterable[KnownRun], name: str | None, *, doing: str) -> KnownRun:
    """Return the run of that name, or the last one that can go on.

    Raises
    ------
    UsageError
        If there is none.
    """
    runs = [*known]
    if name is None:
        runs = [run for run in runs if run.can_go_on]
        if not runs:
            raise UsageError(
                f"There is no run to {doing}.", "See genesis-pg test --list; start one without --resume."
            )
        return runs[-1]
    found = [run for run in runs if run.name == name] or [run for run in runs if run.name.startswith(name)]
    if len(found) != 1:
        names = ", ".join(run.name for run in found or runs) or "none"
        raise UsageError(f"{name!r} names {len(found)} runs.", f"Choose one of: {names}.")
    return found[0]


def abandon(run: KnownRun, clock: Clock) -> None:
    """Say in the journal that a run does not go on; what it has recorded stays.

    Raises
    ------
    UsageError
        If it is over already, or cannot be read.
    AlreadyRunning
        If a runner is at it.
    JournalError
    """
    if not (run.can_go_on or run.is_running):
        raise UsageError(f"Run {run.name} is {run.status}.", "Only a run that could go on can be abandoned.")
    with RunJournal(run.folder) as journal:
        try:
            journal.append(Left(Ending.ABANDONED, clock.now(), "The run was abandoned."))
        except OSError as error:
            raise UsageError(
                f"The journal of run {run.name} cannot be written: {error.strerror}.", "Make room on that disk."
            ) from error


def _known(folder: Path) -> KnownRun:
    is_running = is_in_use(folder)
    try:
        found = recover(folder)
    except (GenesisError, OSError) as error:
        what = error.what if isinstance(error, GenesisError) else str(error)
        return KnownRun(folder, None, RunState(), is_running, what)
    return KnownRun(folder, found.description, found.state, is_running)


def _written_in(lock: Path) -> int | None:
    try:
        return int(lock.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
