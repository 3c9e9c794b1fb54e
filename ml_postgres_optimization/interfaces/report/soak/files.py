"""A run's report as files: read once, judged, and written as HTML, JSON, CSV and .hlog."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ml_postgres_optimization.errors import StateError
from ml_postgres_optimization.interfaces.report.soak.soak_page import render_soak
from ml_postgres_optimization.interfaces.report.soak.tables import drift_table
from ml_postgres_optimization.interfaces.report.soak.words import headline, progress_note
from ml_postgres_optimization.interfaces.reporter import Result, Table, json_text
from ml_postgres_optimization.soak.figures.fold import MINUTE_SECONDS, RunFigures, fold
from ml_postgres_optimization.soak.figures.outline import RunOutline
from ml_postgres_optimization.soak.interval import Interval
from ml_postgres_optimization.soak.judging.limits import Limits
from ml_postgres_optimization.soak.judging.verdict import Verdict, judge
from ml_postgres_optimization.soak.reporting.document import run_json
from ml_postgres_optimization.soak.reporting.hlog import HistogramLog
from ml_postgres_optimization.soak.reporting.minutes_csv import write_minutes_csv
from ml_postgres_optimization.telemetry import Histogram
from ml_postgres_optimization.telemetry.export import write_whole

HTML, JSON, CSV, HLOG = "report.html", "report.json", "minutes.csv", "response.hlog"


@dataclass(frozen=True, slots=True)
class RunReport:
    """A judged run, and where its report is.

    Parameters
    ----------
    figures : RunFigures
    verdict : Verdict
    paths : mapping of str to Path
        By `HTML`, `JSON`, `CSV`, `HLOG`.
    """

    figures: RunFigures
    verdict: Verdict
    paths: Mapping[str, Path]

    def result(self) -> Result:
        """Return the report for a terminal or a program, with exit code 0 where the run passed, else 1."""
        rows = [(one.title, one.outcome.value, one.found, one.limit) for one in self.verdict.findings]
        note = progress_note(self.figures)
        lines = [
            f"{self.verdict.result.value.capitalize()}: {headline(self.figures, self.verdict)}",
            *([note] if note else []),
            *(f"Report: {path}" for path in self.paths.values()),
        ]
        document = {
            **run_json(self.figures, self.verdict),
            "files": {name: str(path) for name, path in self.paths.items()},
        }
        criteria = Table("Criteria", ("criterion", "", "found", "limit"), rows, 2)
        is_any_decided = any(drift.doubt is None for drift in self.verdict.drifts.values())
        tables = [criteria, drift_table(self.verdict)] if is_any_decided else [criteria]
        return Result(document, tables, lines, self.verdict.exit_code)


def unwritten_report(outline: RunOutline, intervals: Iterable[Interval], limits: Limits) -> RunReport:
    """Read a run's intervals once and judge them, where no file can be written.

    Raises
    ------
    StateError
        If the intervals are damaged.
    """
    figures = fold(outline, intervals)
    return RunReport(figures, judge(figures, limits), {})


def write_report(
    description: RunOutline, intervals: Iterable[Interval], limits: Limits, folder: Path, made_at: datetime
) -> RunReport:
    """Read a run's intervals once, judge them, and write the report into `folder`, in place of an earlier one.

    Raises
    ------
    StateError
        If a file cannot be written (it is not there then, or is as it was), or the intervals are damaged.

    Notes
    -----
    Memory grows by minutes and their figures: three days of simulated intervals of ten seconds took some 20 MB, and
    12 s of one core.
    """
    paths = {name: folder / name for name in (HTML, JSON, CSV, HLOG)}
    folded: list[RunFigures] = []

    def write_log(partial: Path) -> None:
        with partial.open("w", encoding="utf-8") as file:
            log = HistogramLog(file, description.started_at, f"Run {description.run}, response times, microseconds")
            seconds = max(MINUTE_SECONDS, description.interval_seconds)

            def on_minute(minute: int, response: Histogram) -> None:
                log.write(minute * seconds, seconds, response)

            folded.append(fold(description, intervals, on_minute=on_minute))

    _write(paths[HLOG], write_log)
    figures = folded[0]
    verdict = judge(figures, limits)
    page, document = render_soak(figures, verdict, made_at), json_text(run_json(figures, verdict))
    _write(paths[HTML], lambda partial: partial.write_text(page, encoding="utf-8"))
    _write(paths[JSON], lambda partial: partial.write_text(document, encoding="utf-8"))
    _write(paths[CSV], lambda partial: write_minutes_csv(figures, partial))
    return RunReport(figures, verdict, paths)


def _write(path: Path, write: Callable[[Path], object]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, write)
    except OSError as error:
        next_step = "Make room, or name another place."
        raise StateError(f"{path} cannot be written: {error.strerror or error}.", next_step) from error
