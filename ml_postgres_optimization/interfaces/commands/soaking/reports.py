"""What a recorded run shows, judged: at its end, and whenever somebody asks for its report again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from ml_postgres_optimization.errors import StateError, UsageError
from ml_postgres_optimization.interfaces.commands.soaking.disturbing import faults_of
from ml_postgres_optimization.interfaces.commands.soaking.runs import known_runs
from ml_postgres_optimization.interfaces.home import Home
from ml_postgres_optimization.interfaces.report.soak.files import (
    CSV,
    HLOG,
    HTML,
    JSON,
    RunReport,
    unwritten_report,
    write_report,
)
from ml_postgres_optimization.interfaces.reporter import Result
from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.interfaces.settings import Settings
from ml_postgres_optimization.soak.figures.outline import RunOutline
from ml_postgres_optimization.soak.journal import Ending, RunDescription, chosen_run, read_run, recover
from ml_postgres_optimization.soak.judging.limits import DriftLimits, Limits, read_limits
from ml_postgres_optimization.telemetry import SystemClock

CRITERIA = "criteria"
"""Key of a run's description under which the criteria are that it was begun with."""
OPTIMIZES = "optimizes"
"""Key under which it says whether the optimiser works beside the run."""
_VIOLATED = "The ledger of operations does not balance: what the server acknowledged is not what is there."


def limits_of(settings: Settings, description: RunDescription | None = None) -> Limits:
    """Return what a run must hold: the criteria file, or without one the run's own; over that what a flag says.

    Parameters
    ----------
    settings : Settings
    description : RunDescription, optional
        Of a run that was begun before; without it the defaults stand for its criteria.

    Raises
    ------
    UsageError
        If the file cannot be read, or says something that is not understood.
    """
    kept = Limits() if description is None else _kept_limits(description)
    limits = read_limits(settings.criteria) if settings.criteria else kept
    if settings.minimum_success_ratio is not None:
        limits = replace(limits, success_ratio=settings.minimum_success_ratio)
    if settings.maximum_mean_milliseconds is not None:
        limits = replace(limits, mean_seconds=settings.maximum_mean_milliseconds / 1000)
    return limits


def _kept_limits(description: RunDescription) -> Limits:
    """Return the criteria that a run was begun with; the defaults where it was by a version that kept none."""
    told: Any = description.load.get(CRITERIA)
    try:
        drift = DriftLimits(**{**told["drift"], "metrics": tuple(told["drift"]["metrics"])})
        return Limits(**{**told, "drift": drift})
    except (KeyError, TypeError, ValueError):
        return Limits()


def report_run(home: Home, settings: Settings, name: str | None) -> Result:
    """Judge a run by what its journal holds, and write its report; a runner at work is not disturbed.

    Parameters
    ----------
    name : str or None
        Of the run, or how it begins; the newest one where None.

    Returns
    -------
    Result
        Exit code 1 where it did not pass.

    Raises
    ------
    UsageError
        If there is no such run, or the criteria are not understood.
    JournalError
        If its journal cannot be read.
    """
    limits_of(settings)  # what is wrong with them is said first
    runs = known_runs(home)
    if not runs:
        raise UsageError("No extended test is recorded here.", "Record one: genesis-pg test --duration HOURS.")
    run = runs[-1] if name is None else chosen_run(runs, name, doing="report")
    output, limits = settings.output or report_folder(home, run.name), limits_of(settings, run.description)
    return judged(run.folder, limits, output, SystemClock().now()).result()


def judged_unwritten(home: Home, settings: Settings, folder: Path) -> Result:
    """Judge the run whose journal is in `folder`, and say where its report is, if anywhere; write nothing.

    Raises
    ------
    UsageError, JournalError
        As `report_run`.
    """
    run, written = read_run(folder), settings.output or report_folder(home, folder.name)
    is_violated = recover(folder).state.ending is Ending.VIOLATED
    outline = outline_of(run.description, is_violated=is_violated)
    report = unwritten_report(outline, run.intervals, limits_of(settings, run.description))
    paths = {name: written / name for name in (HTML, JSON, CSV, HLOG) if (written / name).exists()}
    return replace(report, paths=paths).result()


def report_folder(home: Home, run: str) -> Path:
    """Return where a run's report is written unless somebody says otherwise."""
    return home.logs / f"test-{run}"


def judged_here(session: Session, folder: Path, limits: Limits) -> RunReport:
    """Judge the run whose journal is in `folder`, and write its report to the chosen folder.

    Where nothing can be written there, say so: the work is done.
    """
    try:
        return judged(
            folder, limits, session.settings.output or report_folder(session.home, folder.name), session.clock.now()
        )
    except StateError as error:
        session.reporter.say(f"{error.what} The work is done all the same: genesis-pg test --report {folder.name}")
        session.log.warning("unwritten", what=error.what)
        return unwritten_report(_outline_in(folder), read_run(folder).intervals, limits)


def judged(folder: Path, limits: Limits, output: Path, at: datetime) -> RunReport:
    """Judge the run whose journal is in `folder`, and write its report into `output`."""
    return write_report(_outline_in(folder), read_run(folder).intervals, limits, output, at)


def _outline_in(folder: Path) -> RunOutline:
    found = recover(folder)
    is_violated = found.state.ending is Ending.VIOLATED
    return outline_of(found.description, is_violated=is_violated, is_settled=found.state.is_settled)


def outline_of(
    description: RunDescription, *, is_violated: bool = False, is_settled: bool | None = None
) -> RunOutline:
    """Return what judge and readers must know of a run beside its intervals."""
    load = description.load
    facts = {
        "PostgreSQL": description.version,
        "Database": description.database,
        "Connections": str(load.get("connections", "")),
        "Seed": str(description.seed),
        "Faults": str(faults_of(load)),
        "Optimiser": "beside the test" if load.get(OPTIMIZES) else "",
        "Recorded by": f"genesis-pg {description.program}",
    }
    return RunOutline(
        description.run,
        description.started_at,
        description.interval_seconds,
        description.duration_seconds,
        server=description.display,
        load=_load_text(load),
        facts={name: text for name, text in facts.items() if text},
        violation=_VIOLATED if is_violated else None,
        is_settled=is_settled,
    )


def _load_text(load: Mapping[str, Any]) -> str:
    level, rate = load.get("level"), load.get("rate_per_second")
    offered = f"{rate:,.0f} operations/s" if isinstance(rate, int | float) else "as many operations as it serves"
    mix = load.get("mix")
    parts = ", ".join(f"{weight:g} {kind}" for kind, weight in mix.items()) if isinstance(mix, Mapping) else ""
    return f"{offered} at level {level}" + (f" ({parts})" if parts else "")
