"""``status``, ``history`` and ``export``: what was recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_postgres_optimization.errors import StateError, UsageError
from ml_postgres_optimization.interfaces.reporter import Result, Table, milliseconds
from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.interfaces.trial_view import interval_text, shown
from ml_postgres_optimization.knobs.catalogue import load_catalogue
from ml_postgres_optimization.safety.journal import read_journal
from ml_postgres_optimization.safety.records import JournalState
from ml_postgres_optimization.target.postgres.repository import TrialRecord
from ml_postgres_optimization.telemetry import Window
from ml_postgres_optimization.telemetry.export import window_frame, write_csv, write_parquet
from ml_postgres_optimization.trials import Interval, Outcome

_WINDOWS_SHOWN = 5


def status(session: Session) -> Result:
    """Show the server, what is in force of the knobs, what trials are in force, and the last windows."""
    capabilities = session.target.capabilities
    repository = session.repository()
    windows = repository.windows(last=_WINDOWS_SHOWN)
    journal = read_journal(session.home.of_server(session.server))
    catalogue = load_catalogue()
    settings = session.target.settings(catalogue.settings_needed)
    ours = [name for name in sorted(catalogue) if name in settings and settings[name].source != "default"]
    watched = _continuous_run(windows)
    document = {
        "server": session.connection.display,
        "version": capabilities.version,
        "system_identifier": session.server,
        "settings": {name: settings[name].value for name in sorted(catalogue) if name in settings},
        "trials_in_force": [trial.intent.trial_id for trial in journal.confirmed],
        "unfinished_trials": [trial.intent.trial_id for trial in journal.unfinished],
        "continuous_run": watched,
        "windows": [_window_json(window) for window in windows],
    }
    rows = [(name, shown(name, settings[name].value, catalogue), settings[name].source) for name in ours]
    lines = [f"{session.connection.display}: PostgreSQL {capabilities.version}", *_state_lines(journal, watched)]
    tables = [
        Table("Knobs that are not at their default", ("knob", "in force", "from"), rows),
        Table("Last windows", _WINDOW_COLUMNS, [_window_row(window) for window in windows], unbroken=1),
    ]
    return Result(document, tables, lines)


def _state_lines(journal: JournalState, watched: Mapping[str, str] | None) -> list[str]:
    """Say which trials are in force, and what a continuous run is doing."""
    lines = [f"Promoted trials in force: {len(journal.confirmed)}; unfinished: {len(journal.unfinished)}"]
    if journal.unfinished:
        lines.append(
            "What a run that was killed left on trial may be in force; the next optimize or rollback undoes it."
        )
    if watched:
        lines.append(f"The last window is of a continuous run, which was {watched['state']} at {watched['at']}.")
    return lines


def _continuous_run(windows: Sequence[Window]) -> dict[str, str] | None:
    """Return what a continuous run was doing in the last window; None where that is of something else."""
    last = max(windows, key=lambda window: window.ended_at, default=None)
    state = None if last is None else last.labels.get("state")
    if last is None or state is None:
        return None
    return {"state": state, "at": f"{last.ended_at:%Y-%m-%d %H:%M:%S %Z}"}


_WINDOW_COLUMNS = ("ended", "phase", "per s", "mean", "p99", "failed", "configuration")


def _window_row(window: Window) -> tuple[str, ...]:
    figures = _window_json(window)
    per_second, failed = figures["throughput_per_second"], figures["failed_total"]
    return (
        f"{window.ended_at:%m-%d %H:%M:%S}",
        window.labels.get("phase", ""),
        "–" if per_second is None else f"{per_second:,.0f}",
        milliseconds(figures["mean_response_seconds"]),
        milliseconds(figures["p99_response_seconds"]),
        "–" if failed is None else str(failed),
        window.configuration_id,
    )


def _window_json(window: Window) -> dict[str, Any]:
    """Return a window's figures: of our operations, else of the statements of others; None for what is not seen."""
    calls = sum(counters.calls_total for counters in window.statements.values())
    spent_seconds = sum(counters.execution_seconds_total for counters in window.statements.values())
    ours = window.operations_total > 0
    theirs = {
        "throughput_per_second": calls / window.duration_seconds if calls and window.duration_seconds else None,
        "mean_response_seconds": spent_seconds / calls if calls else None,
        "p99_response_seconds": None,
        "failed_total": window.failed_total or None,
    }
    own = {
        "throughput_per_second": window.throughput_per_second,
        "mean_response_seconds": window.response.mean_seconds,
        "p99_response_seconds": window.response.quantile_seconds(0.99),
        "failed_total": window.failed_total,
    }
    return {
        "ended_at": window.ended_at.isoformat(),
        "labels": dict(window.labels),
        "source": "operations" if ours else "statements",
        **(own if ours else theirs),
        "configuration": window.configuration_id,
    }


def history(session: Session, *, limit: int = 20) -> Result:
    """Show the trials, newest first, and what the promoted ones brought together."""
    trials = session.repository().trials()
    newest = list(reversed(trials))[:limit]
    document = {"trials": [_trial_json(trial) for trial in newest], "total": len(trials)}
    columns = ("trial", "outcome", "change", "response time", "pairs", "by")
    table = Table("Trials, newest first", columns, [_trial_row(trial) for trial in newest], unbroken=1)
    promoted = sum(trial.outcome == Outcome.PROMOTED for trial in trials)
    return Result(document, [table], [f"Trials: {len(trials)}, of which {promoted} promoted."])


def _trial_row(trial: TrialRecord) -> tuple[str, ...]:
    catalogue = load_catalogue()
    changes = trial.candidate.difference(trial.baseline)
    return (
        trial.id,
        trial.outcome,
        "\n".join(
            f"{name}: {shown(name, old, catalogue)} → {shown(name, new, catalogue)}"
            for name, (old, new) in changes.items()
        ),
        interval_text(Interval(trial.ratio, trial.ratio_low, trial.ratio_high)),
        str(len(trial.pairs)),
        trial.origin,
    )


def _trial_json(trial: TrialRecord) -> dict[str, object]:
    changes = trial.candidate.difference(trial.baseline)
    return {
        "id": trial.id,
        "started_at": trial.started_at.isoformat(),
        "outcome": trial.outcome,
        "because": trial.verdict_reason,
        "origin": trial.origin,
        "reason": trial.reason,
        "changes": {name: {"before": old, "after": new} for name, (old, new) in changes.items()},
        "ratio": trial.ratio,
        "ratio_low": trial.ratio_low,
        "ratio_high": trial.ratio_high,
        "design": trial.design,
        "pairs": len(trial.pairs),
        "slower_parts": [part._asdict() for part in trial.slower_parts],
    }


_WRITERS = {"csv": write_csv, "parquet": write_parquet}


def check_format(file_format: str) -> None:
    """Refuse a format that `export` does not know.

    Raises
    ------
    UsageError
    """
    if file_format not in _WRITERS:
        raise UsageError(f"The format {file_format!r} is not known.", "Choose csv or parquet.")


def export(session: Session, *, directory: Path | None = None, file_format: str = "csv") -> Result:
    """Write all recorded windows to one file.

    Raises
    ------
    UsageError
        If the format is not known.
    StateError
        If the file cannot be written.
    """
    check_format(file_format)
    frame = window_frame(session.repository().stream())
    path = (directory or session.home.logs) / f"windows.{file_format}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _WRITERS[file_format](frame, path)
    except OSError as error:
        raise StateError(
            f"{path} cannot be written: {error.strerror or error}.", "Choose another --directory, or make room."
        ) from error
    document = {"windows": len(frame), "path": str(path)}
    return Result(document, (), [f"{len(frame)} windows written to {path}"])
