"""``test --list``, ``test --abandon``: the runs that are recorded here, without a server."""

from __future__ import annotations

from ml_postgres_optimization.interfaces.home import Home
from ml_postgres_optimization.interfaces.reporter import Result, Table
from ml_postgres_optimization.soak.journal import KnownRun, abandon, chosen_run, runs_in
from ml_postgres_optimization.telemetry import SystemClock

_COLUMNS = ("run", "status", "server", "hours", "done", "intervals", "runners")


def known_runs(home: Home) -> list[KnownRun]:
    """Return the runs of every server, the oldest first."""
    return sorted((run for folder in home.all_runs() for run in runs_in(folder)), key=lambda run: run.name)


def list_runs(home: Home) -> Result:
    """Show every run that is recorded, and how far it has come."""
    runs = known_runs(home)
    lines = [f"{run.name}: {run.trouble}" for run in runs if run.trouble]
    if not runs:
        lines = ["No extended test is recorded here."]
    table = Table("Extended tests", _COLUMNS, [_row(run) for run in runs], unbroken=1)
    return Result({"runs": [run_json(run) for run in runs]}, [table] if runs else [], lines)


def abandon_run(home: Home, name: str | None) -> Result:
    """Give a run up: it cannot be taken up again, and what it has recorded stays.

    Raises
    ------
    UsageError
        If there is no such run, or it is over.
    AlreadyRunning
        If a runner is at it.
    """
    run = chosen_run(known_runs(home), name, doing="abandon")
    abandon(run, SystemClock())
    return Result({"abandoned": run.name}, (), [f"Run {run.name} is abandoned; its records stay in {run.folder}."])


def run_json(run: KnownRun) -> dict[str, object]:
    """Return what is known of a run."""
    known, state = run.description, run.state
    return {
        "run": run.name,
        "status": run.status,
        "folder": str(run.folder),
        "server": known and known.display,
        "started_at": known and known.started_at.isoformat(),
        "duration_seconds": known and known.duration_seconds,
        "done_seconds": state.mark.elapsed_seconds,
        "intervals_total": state.last_number + 1,
        "runners_total": state.epoch,
        "operations": {
            "due_total": state.totals.due_total,
            "succeeded_total": state.totals.succeeded_total,
            "failed_total": state.totals.failed_total,
            "skipped_total": state.totals.skipped_total,
            "ambiguous_total": state.totals.ambiguous_total,
        },
        "trouble": run.trouble or None,
    }


def _row(run: KnownRun) -> tuple[str, ...]:
    known, state = run.description, run.state
    if known is None:
        return run.name, run.status, "–", "–", "–", "–", "–"
    done = min(1.0, state.mark.elapsed_seconds / known.duration_seconds)
    hours = f"{known.duration_seconds / 3600:.4g}"
    return run.name, run.status, known.display, hours, f"{done:.0%}", f"{state.last_number + 1:,}", str(state.epoch)
