"""The extended test's report as one HTML file: nothing to load, and no script but its own, for reading values."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from importlib.resources import files
from string import Template

import numpy as np
from numpy.typing import NDArray

from ml_postgres_optimization import __version__
from ml_postgres_optimization.interfaces.report.page import GENERATOR, escaped, render_table
from ml_postgres_optimization.interfaces.report.soak.lanes import render_lanes
from ml_postgres_optimization.interfaces.report.soak.panels import plots_of
from ml_postgres_optimization.interfaces.report.soak.plot import Ground, Plot, render_plot
from ml_postgres_optimization.interfaces.report.soak.scale import TimeScale
from ml_postgres_optimization.interfaces.report.soak.tables import tables_of
from ml_postgres_optimization.interfaces.report.soak.words import (
    Card,
    cards,
    duration,
    headline,
    progress_note,
    what_was_run,
)
from ml_postgres_optimization.soak.figures.fold import RunFigures
from ml_postgres_optimization.soak.judging.outcome import Finding, Outcome
from ml_postgres_optimization.soak.judging.verdict import Result, Verdict
from ml_postgres_optimization.target.postgres.connection.settings import on_one_line

_WORDS = {Result.PASSED: "Passed", Result.FAILED: "Failed", Result.UNDECIDED: "Not decidable"}
# Told apart by shape as well as by colour.
_SIGNS = {Outcome.PASSED: "✓", Outcome.FAILED: "✗", Outcome.UNDECIDED: "?"}


def render_soak(figures: RunFigures, verdict: Verdict, made_at: datetime) -> str:
    """Return a judged run as one HTML document.

    Parameters
    ----------
    figures : RunFigures
    verdict : Verdict
        Of the same run.
    made_at : datetime
        Aware.

    Notes
    -----
    Any text in it may be hostile, and is only text. The policy in its head allows no request, and no script but the
    page's own, by its hash.
    """
    seconds = max(figures.covered_seconds, figures.description.interval_seconds)
    ground = Ground(TimeScale(figures.description.started_at, seconds), figures.gaps, figures.events)
    plots = plots_of(figures.slots, success_ratio=_success_limit(verdict))
    script = _file("soak.js")
    note = progress_note(figures)
    return Template(_file("soak.html")).substitute(
        generator=f"{GENERATOR} {__version__}",
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
        style=_file("soak.css"),
        script=script,
        data=_data(plots, ground, figures),
        title=escaped(f"Extended test {figures.description.run}"),
        result=verdict.result.name.lower(),
        word=_WORDS[verdict.result],
        headline=escaped(headline(figures, verdict)),
        progress=f'<p class="progress">{escaped(note)}</p>' if note else "",
        cards="".join(map(_card, cards(figures, verdict))),
        criteria="".join(map(_criterion, verdict.findings)),
        run="".join(f"<dt>{escaped(name)}</dt><dd>{escaped(text)}</dd>" for name, text in what_was_run(figures)),
        slot=escaped(duration(figures.slots.slot_seconds)),
        lanes=render_lanes(ground),
        plots="\n".join(render_plot(plot, ground, number) for number, plot in enumerate(plots)),
        tables="\n".join(map(render_table, tables_of(figures, verdict))),
        footer=escaped(f"Made by {GENERATOR} {__version__}, {made_at:%Y-%m-%d %H:%M} UTC"),
    )


def _success_limit(verdict: Verdict) -> float | None:
    return next((finding.limit_value for finding in verdict.findings if finding.name == "success"), None)


def _file(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


def _card(card: Card) -> str:
    outcome = card.outcome.name.lower() if card.outcome else "unasked"
    return (
        f'<div class="card {outcome}"><h3>{escaped(card.title)}</h3><p class="figure">{escaped(card.figure)}</p>'
        f"<p>{escaped(card.meaning)}</p></div>"
    )


def _criterion(finding: Finding) -> str:
    outcome = finding.outcome
    return (
        f'<tr class="{outcome.name.lower()}"><td><span class="sign" title="{outcome.value}">{_SIGNS[outcome]}</span>'
        f'<span class="hidden">{outcome.value}</span></td><th scope="row">{escaped(finding.title)}</th>'
        f"<td>{escaped(finding.found)}</td><td>{escaped(finding.limit)}</td></tr>"
    )


def _data(plots: Sequence[Plot], ground: Ground, figures: RunFigures) -> str:
    """Return what the script reads out beneath a pointer: labels, not numbers, so that it need not know of units."""
    document = {
        "start": ground.time.started_at.timestamp(),
        "offset": (ground.time.started_at.utcoffset() or timedelta()).total_seconds(),
        "seconds": ground.time.seconds,
        "slot": figures.slots.slot_seconds,
        "plots": [{line.name: _labels(plot, line.values) for line in plot.lines} for plot in plots],
        "events": [[ground.time.share_at(event.at), on_one_line(event.text)] for event in ground.events],
    }
    return json.dumps(document, ensure_ascii=True, separators=(",", ":")).replace("<", "\\u003c")


def _labels(plot: Plot, values: NDArray[np.float64]) -> list[str]:
    return ["" if math.isnan(value) else plot.shown(value) for value in values.tolist()]
