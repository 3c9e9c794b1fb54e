"""``test --attach``, ``test --stop``: a run that another process is at, seen and ended from any terminal."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from dataclasses import replace

from ml_postgres_optimization.errors import StateError, UsageError
from ml_postgres_optimization.interfaces.commands.soaking.reports import judged_unwritten, outline_of
from ml_postgres_optimization.interfaces.commands.soaking.runs import known_runs
from ml_postgres_optimization.interfaces.home import Home
from ml_postgres_optimization.interfaces.reporter import Reporter, Result
from ml_postgres_optimization.interfaces.settings import Settings
from ml_postgres_optimization.safety.journal import is_in_use
from ml_postgres_optimization.soak.journal import Ending, FollowedRun, KnownRun, chosen_run, recover
from ml_postgres_optimization.target.host import has_open
from ml_postgres_optimization.telemetry import Clock, SystemClock

_LOOK_SECONDS = 1.0
# The load's processes hand over what they have left, and the ledger is settled.
_STOP_SECONDS = 60.0


def attach_run(
    home: Home, settings: Settings, reporter: Reporter, name: str | None, *, clock: Clock | None = None
) -> Result:
    """Show how a run stands until its runner leaves it, then its verdict; nothing of it is changed.

    Parameters
    ----------
    name : str or None
        Of the run, or how it begins; where None the one that is running, else the newest.
    clock : Clock, optional

    Returns
    -------
    Result
        Exit code as the test's own: 0 passed, 1 not; 1 too where it was stopped, or its runner was killed. After
        Ctrl-C, which leaves the run going, 0.

    Raises
    ------
    UsageError
        If there is no such run, or the criteria are not understood.
    JournalError
        If its journal cannot be read.
    StateError
        If it cannot be read any more.
    """
    run = _seen(known_runs(home), name)
    try:
        _watch(run, reporter, clock or SystemClock())
    except KeyboardInterrupt:
        line = f"Run {run.name} goes on; see it again: genesis-pg test --attach {run.name}"
        return Result({"run": run.name, "status": "running"}, (), [line])
    except OSError as error:
        raise StateError(
            f"The journal in {run.folder} cannot be read any more: {error.strerror or error}.",
            "Look with genesis-pg test --list what became of the run.",
        ) from error
    return _ended(home, settings, run)


def stop_run(home: Home, name: str | None, *, clock: Clock | None = None) -> Result:
    """Have the runner of a run leave it in good order, as Ctrl-C does, and wait until it has.

    Parameters
    ----------
    name : str or None
        Of the run, or how it begins; the one that is running where None.
    clock : Clock, optional

    Raises
    ------
    UsageError
        If there is no such run, or nobody is at it.
    StateError
        If its runner cannot be told, or does not leave.
    """
    clock, run = clock or SystemClock(), _running(known_runs(home), name)
    process_id = run.process_id
    # of another container, for one, the number may be a stranger's here
    if process_id is None or not has_open(process_id, run.lock):
        raise StateError(
            f"The runner of run {run.name} is not seen from here (it says it is process {process_id}).",
            "Stop it where it was started.",
        )
    try:
        os.kill(process_id, signal.SIGTERM)  # SIGINT is ignored by what a shell has put into the background
    except OSError as error:
        raise StateError(
            f"Process {process_id} cannot be stopped: {error.strerror}.", "Stop it as its user."
        ) from error
    until = clock.monotonic_seconds() + _STOP_SECONDS
    while is_in_use(run.folder):
        if clock.monotonic_seconds() > until:
            raise StateError(
                f"Run {run.name} was told to stop {_STOP_SECONDS:.0f} s ago, but process {process_id} is at it.",
                "Look again with genesis-pg test --list.",
            )
        clock.sleep(_LOOK_SECONDS)
    ending = recover(run.folder).state.ending
    status = "killed" if ending is None else ending.value
    lines = [f"Run {run.name} is {status}."]
    if ending in (None, Ending.STOPPED):
        lines.append(f"It goes on with: genesis-pg test --resume {run.name}")
    return Result({"run": run.name, "status": status, "process_id": process_id}, (), lines)


def _seen(runs: Iterable[KnownRun], name: str | None) -> KnownRun:
    known = [*runs]
    if not known:
        raise UsageError(
            "No extended test is recorded here.", "Begin one: genesis-pg test --duration HOURS --detach."
        )
    if name is not None:
        return chosen_run(known, name, doing="attach to")
    return [run for run in known if run.is_running][-1] if any(run.is_running for run in known) else known[-1]


def _running(runs: Iterable[KnownRun], name: str | None) -> KnownRun:
    known = [*runs]
    if name is not None:
        known = [chosen_run(known, name, doing="stop")]
    running = [run for run in known if run.is_running]
    if len(running) == 1:
        return running[0]
    if running:
        names = ", ".join(run.name for run in running)
        raise UsageError(f"{len(running)} runs are running.", f"Choose one of: {names}.")
    if name is not None:
        raise UsageError(f"Run {known[0].name} is {known[0].status}.", "Only a run that is running can be stopped.")
    raise UsageError("No run is running.", "See genesis-pg test --list.")


def _watch(run: KnownRun, reporter: Reporter, clock: Clock) -> None:
    """Show each interval as it comes, as long as somebody is at the run."""
    followed = FollowedRun(run.folder, is_recent=True)
    if not run.is_running:
        return
    reporter.say(f"Run {run.name}: Ctrl-C leaves it going.")
    with reporter.watching(outline_of(followed.description), followed.news(), followed.so_far) as show:
        while True:
            is_running = is_in_use(run.folder)  # before the look: nothing is written after it
            for interval in followed.news():
                show(interval)
            if not is_running:
                return
            clock.sleep(_LOOK_SECONDS)


def _ended(home: Home, settings: Settings, run: KnownRun) -> Result:
    """Judge a run that nobody is at any more, and say why where it did not come to its end."""
    told, ending = judged_unwritten(home, settings, run.folder), recover(run.folder).state.ending
    status = "killed" if ending is None else ending.value
    lines, code = [*told.lines], told.exit_code
    if ending in (None, Ending.STOPPED):
        lines.append(f"Run {run.name} was {status}; genesis-pg test --resume {run.name} goes on with it.")
        code = 1
    lines += [] if told.document.get("files") else [_where(run)]
    return replace(told, document={**told.document, "status": status}, lines=lines, exit_code=code)


def _where(run: KnownRun) -> str:
    return f"Its report is written by its runner, and again by: genesis-pg test --report {run.name}"
