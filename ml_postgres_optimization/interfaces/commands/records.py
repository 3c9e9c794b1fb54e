"""``status``, ``history`` and ``export``: what was recorded."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_postgres_optimization.errors import StateError, UsageError
from ml_postgres_optimization.interfaces.lineage import Line, Proof, lines, proofs
from ml_postgres_optimization.interfaces.reporter import Result, Table, milliseconds
from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.interfaces.trial_view import (
    PROOF,
    changes_text,
    effect_of,
    interval_text,
    percent_change,
    shown,
)
from ml_postgres_optimization.knobs.catalogue import load_catalogue
from ml_postgres_optimization.safety.journal import JournalState, read_journal
from ml_postgres_optimization.target.postgres.repository import SettingChange, TrialRecord
from ml_postgres_optimization.telemetry import Window
from ml_postgres_optimization.telemetry.export import window_frame, write_csv, write_parquet
from ml_postgres_optimization.trials import Outcome

_WINDOWS_SHOWN = 5
_CHANGES_SHOWN = 10


def status(session: Session) -> Result:
    """Show the server, what is in force of the knobs, what trials are in force, and the last windows."""
    capabilities = session.target.capabilities
    repository = session.repository()
    windows = repository.windows(last=_WINDOWS_SHOWN)
    changes = repository.configuration_changes(session.server, last=_CHANGES_SHOWN)
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
        "changes": [_change_json(change) for change in changes],
    }
    rows = [(name, shown(name, settings[name].value, catalogue), settings[name].source) for name in ours]
    lines = [f"{session.connection.display}: PostgreSQL {capabilities.version}", *_state_lines(journal, watched)]
    tables = [
        Table("Knobs that are not at their default", ("knob", "in force", "from"), rows),
        *_changes_table(changes),
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


def _changes_table(changes: Sequence[SettingChange]) -> list[Table]:
    """Show who changed what last; no table where nothing was ever changed."""
    rows = [
        (
            f"{change.at:%Y-%m-%d %H:%M:%S}",
            change.name,
            change.old or "–",
            change.new,
            f"{change.brought_by} {change.trial_id}" if change.trial_id else change.brought_by,
        )
        for change in changes
    ]
    columns = ("at, UTC", "setting", "from", "to", "by")
    return (
        [Table("Last changes of the configuration, by us and by others", columns, rows, unbroken=1)] if rows else []
    )


def _change_json(change: SettingChange) -> dict[str, object]:
    return {
        "at": change.at.isoformat(),
        "not_before": change.not_before.isoformat(),
        "name": change.name,
        "old": change.old,
        "new": change.new,
        "by": change.brought_by,
        "trial": change.trial_id,
    }


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
    """Show the trials, newest first, what each brought up to then, what all bring now, and the proofs of it.

    Notes
    -----
    A proof is a trial too, but promotes nothing: it measures afresh what promotions brought, and is told apart.
    """
    trials = session.repository().trials()
    stood = list(lines(trials))
    proven = proofs(trials)
    in_force = {trial.intent.trial_id for trial in read_journal(session.home.of_server(session.server)).confirmed}
    newest = list(zip(reversed(trials), reversed(stood), strict=True))[:limit]
    promoted = sum(trial.outcome == Outcome.PROMOTED and trial.origin != PROOF for trial in trials)
    document = {
        "trials": [
            _trial_json(trial) | {"so_far": line.brought._asdict(), "in_force": trial.id in in_force}
            for trial, line in newest
        ],
        "total": len(trials),
        "promoted": promoted,
        "brought": _brought_json(stood[-1]) if stood else None,
        "proofs": [_proof_json(proof) for proof in proven],
    }
    columns = ("trial", "outcome", "change", "response time", "so far", "pairs", "by")
    table = Table("Trials, newest first", columns, [_trial_row(*one) for one in newest], unbroken=2)
    counted = f"Trials: {len(trials)}; promoted: {promoted}; proofs: {len(proven)}."
    return Result(document, [table, *_proofs_table(proven)], [counted, *_brought_lines(stood, in_force)])


def _trial_row(trial: TrialRecord, line: Line) -> tuple[str, ...]:
    return (
        trial.id,
        trial.outcome,
        changes_text(trial.baseline, trial.candidate, load_catalogue()),
        interval_text(effect_of(trial)),
        percent_change(line.brought.ratio) if line.promoted else "–",
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


def _brought_json(line: Line) -> dict[str, object]:
    return {"promotions": [trial.id for trial in line.promoted], **line.brought._asdict()}


def _brought_lines(stood: Sequence[Line], in_force: Container[str]) -> Iterator[str]:
    """Say what the promotions that stand on each other bring in total, and what of it is not sure to be in force."""
    if not stood or not stood[-1].promoted:
        return
    line = stood[-1]
    first, many = line.promoted[0], len(line.promoted)
    yield (
        f"In total, since {first.started_at:%Y-%m-%d %H:%M} UTC: {interval_text(line.brought)} in response time, the "
        f"product of {many} {'promotion' if many == 1 else 'promotions'}. "
        "Each was chosen for its figures, which flatters them: only a proof is free of that."
    )
    if gone := [trial.id for trial in line.promoted if trial.id not in in_force]:
        yield (
            f"Not in force by the journal of this installation: {', '.join(gone)}; rolled back, or promoted from "
            "another installation."
        )


def _proof_json(proof: Proof) -> dict[str, object]:
    return {
        "trial": proof.trial.id,
        "promotions": [trial.id for trial in proof.promised.promoted] if proof.promised else None,
        "promised": proof.promised.brought._asdict() if proof.promised else None,
        "proven": proof.proven._asdict() if proof.proven else None,
        "initial_put_back": proof.trial.outcome == Outcome.PROMOTED,
    }


def _proofs_table(proven: Sequence[Proof]) -> list[Table]:
    rows = [
        (
            proof.trial.id,
            str(len(proof.promised.promoted)) if proof.promised else "–",
            interval_text(proof.promised.brought) if proof.promised else "–",
            interval_text(proof.proven) if proof.proven else "nothing was seen to run",
            "initial put back" if proof.trial.outcome == Outcome.PROMOTED else "kept",
        )
        for proof in reversed(proven)
    ]
    columns = ("trial", "promotions", "promised", "proven", "what was found then")
    title = "Proofs, newest first: what had been found over what it started from, measured afresh"
    return [Table(title, columns, rows, unbroken=1)] if rows else []


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
