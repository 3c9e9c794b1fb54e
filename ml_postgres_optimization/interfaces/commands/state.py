"""``status``: the server, what is in force, who changed it, and the last windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ml_postgres_optimization.interfaces.commands.soaking.runs import run_json
from ml_postgres_optimization.interfaces.reporter import Result, Table, milliseconds
from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.interfaces.trial_view import shown
from ml_postgres_optimization.knobs.catalogue import Catalogue, load_catalogue
from ml_postgres_optimization.knobs.configuration import described
from ml_postgres_optimization.knobs.knob import Setting
from ml_postgres_optimization.knobs.rendering import written_text
from ml_postgres_optimization.safety.consent import Answer
from ml_postgres_optimization.safety.journal import JournalState, is_in_use, read_journal
from ml_postgres_optimization.safety.undo import NOTHING
from ml_postgres_optimization.soak.journal import KnownRun, runs_in
from ml_postgres_optimization.target.postgres.repository import SettingChange
from ml_postgres_optimization.telemetry import Window

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
    watched = _continuous_run(windows)
    document = {
        "server": session.connection.display,
        "version": capabilities.version,
        "system_identifier": session.server,
        "settings": {name: settings[name].value for name in sorted(catalogue) if name in settings},
        "trials_in_force": [trial.intent.trial_id for trial in journal.confirmed],
        "unfinished_trials": [trial.intent.trial_id for trial in journal.unfinished],
        "on_trial": _on_trial(journal),
        "continuous_run": watched,
        "windows": [_window_json(window) for window in windows],
        "changes": [_change_json(change) for change in changes],
        "extended_tests": [run_json(run) for run in _live_runs(session)],
    } | _word_json(session)
    tables = [
        _knobs_table(catalogue, settings),
        *_changes_table(changes),
        Table("Last windows", _WINDOW_COLUMNS, [_window_row(window) for window in windows], unbroken=1),
    ]
    lines = [f"{session.connection.display}: PostgreSQL {capabilities.version}"]
    lines += [*_state_lines(journal, watched, is_at_work=is_in_use(session.home.of_server(session.server)))]
    return Result(document, tables, [*lines, *_run_lines(_live_runs(session)), *_word_lines(session)])


def _state_lines(journal: JournalState, watched: Mapping[str, str] | None, *, is_at_work: bool) -> list[str]:
    """Say which trials are in force, and what a continuous run is doing."""
    lines = [f"Promoted trials in force: {len(journal.confirmed)}; unfinished: {len(journal.unfinished)}"]
    if journal.unfinished and is_at_work:
        lines.append("The run that is at work has it on trial, and puts it back or confirms it.")
    elif journal.unfinished:
        lines.append(
            "What a run that was killed left on trial may be in force; the next optimize or rollback undoes it."
        )
    lines += [f"On trial: {knob['name']} = {knob['now']}, was {knob['before']}." for knob in _on_trial(journal)]
    if watched:
        lines.append(f"The last window is of a continuous run, which was {watched['state']} at {watched['at']}.")
    return lines


def _on_trial(journal: JournalState) -> list[dict[str, str]]:
    """Return what is on trial, or about to be, of the server and of roles, as it is written."""
    return [
        {
            "trial": trial.intent.trial_id,
            "name": described(knob.name),
            "before": NOTHING if knob.old_written is None else knob.old_written,
            "now": written_text(knob.new_value),
        }
        for trial in journal.unfinished
        for knob in trial.intent.knobs
    ]


def _knobs_table(catalogue: Catalogue, settings: Mapping[str, Setting]) -> Table:
    """Return the knobs that are not at their default."""
    ours = [name for name in sorted(catalogue) if name in settings and settings[name].source != "default"]
    rows = [(name, shown(name, settings[name].value, catalogue), settings[name].source) for name in ours]
    return Table("Knobs that are not at their default", ("knob", "in force", "from"), rows)


def _live_runs(session: Session) -> list[KnownRun]:
    """Return the extended tests of this server that run, or could go on."""
    return [run for run in runs_in(session.home.runs_of(session.server)) if run.is_running or run.can_go_on]


def _run_lines(runs: Sequence[KnownRun]) -> list[str]:
    """Say which extended tests run here, or could go on."""
    lines = []
    for run in runs:
        done = run.state.mark.elapsed_seconds / run.description.duration_seconds if run.description else 0.0
        way = "" if run.is_running else "; genesis-pg test --resume goes on with it"
        lines.append(f"Extended test {run.name}: {run.status}, {min(1.0, done):.0%} done{way}.")
    return lines


def _word_json(session: Session) -> dict[str, object]:
    waiting = session.approvals.all(Answer.WAITING)
    return {"paused": session.pause_file.said(), "proposals_waiting": [asked.id for asked in waiting]}


def _word_lines(session: Session) -> list[str]:
    """Say what the owner has halted, and what waits for a word."""
    said, waiting = session.pause_file.said(), session.approvals.all(Answer.WAITING)
    lines = [] if said is None else [f"Changes are paused{f' ({said})' if said else ''}; genesis-pg resume ends it."]
    if waiting:
        lines.append(
            f"Proposals that wait for a word: {', '.join(asked.id for asked in waiting)} (genesis-pg approve)"
        )
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
            f"{change.at:%Y-%m-%d %H:%M:%SZ}",
            change.name,
            change.old or "–",
            change.new,
            f"{change.brought_by} {change.trial_id}" if change.trial_id else change.brought_by,
        )
        for change in changes
    ]
    columns = ("at", "setting", "from", "to", "by")
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
