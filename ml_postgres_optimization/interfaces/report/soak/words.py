"""A verdict in plain words: for whoever reads one screen."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ml_postgres_optimization.soak.figures.fold import RunFigures
from ml_postgres_optimization.soak.figures.totals import MEASURED
from ml_postgres_optimization.soak.interval import IntervalState
from ml_postgres_optimization.soak.judging.outcome import Finding, Outcome
from ml_postgres_optimization.soak.judging.quantity import Dimension, shown, shown_seconds
from ml_postgres_optimization.soak.judging.verdict import Result, Verdict


@dataclass(frozen=True, slots=True)
class Card:
    """One of the figures that matter: its title, itself, what it means, and the outcome that colours it."""

    title: str
    figure: str
    meaning: str
    outcome: Outcome | None


def headline(figures: RunFigures, verdict: Verdict) -> str:
    """Return the verdict in one sentence."""
    lasted = duration(figures.covered_seconds)
    failed = [finding for finding in verdict.findings if finding.outcome is Outcome.FAILED]
    undecided = [finding for finding in verdict.findings if finding.outcome is Outcome.UNDECIDED]
    judged = len(verdict.findings)
    if failed:
        what = "; ".join(f"{_lower(one.title)}: {one.found}, allowed {one.limit}" for one in failed)
        was = "was" if len(failed) == 1 else "were"
        return f"{len(failed)} of {judged} criteria {was} not held in {lasted}. {_upper(what)}."
    if verdict.result is Result.PASSED:
        rest = f"; {len(undecided)} could not be decided" if undecided else ""
        return f"The server held {judged - len(undecided)} of {judged} criteria for {lasted}{rest}."
    if undecided and verdict.undecided_fails and any(one.outcome is Outcome.PASSED for one in verdict.findings):
        return (
            f"{len(undecided)} of {judged} criteria could not be decided in {lasted}, which was to count as failed."
        )
    return f"Nothing could be decided in {lasted}: {undecided[0].evidence if undecided else 'nothing was asked.'}"


def progress_note(figures: RunFigures) -> str | None:
    """Say that a run has not come to its planned end, where it has not."""
    planned = figures.description.planned_seconds
    if figures.covered_seconds >= planned - figures.description.interval_seconds:
        return None
    return f"The run has covered {duration(figures.covered_seconds)} of the {duration(planned)} that were planned."


def cards(figures: RunFigures, verdict: Verdict) -> list[Card]:
    """Return the four figures that matter."""
    return [_success_card(figures, verdict), _mean_card(figures, verdict), _slow_card(figures, verdict),
            _drift_card(verdict)]  # fmt: skip


def _success_card(figures: RunFigures, verdict: Verdict) -> Card:
    totals = figures.totals
    unsuccessful = totals.due_total - totals.succeeded_total
    if not totals.due_total:
        meaning = "nothing came due"
    elif not unsuccessful:
        meaning = f"all of {totals.due_total:,} operations"
    else:
        meaning = f"1 operation in {totals.due_total / unsuccessful:,.0f} did not"
    return Card("Succeeded", shown(totals.success_ratio, Dimension.RATIO), meaning, _outcome(verdict, "success"))


def _mean_card(figures: RunFigures, verdict: Verdict) -> Card:
    response = figures.totals.response
    middle = shown_seconds(response.quantile_seconds(0.5))
    return Card(
        "Mean response", shown_seconds(response.mean_seconds), f"half of them within {middle}",
        _outcome(verdict, "mean"),
    )  # fmt: skip


def _slow_card(figures: RunFigures, verdict: Verdict) -> Card:
    response = figures.totals.response
    worst = shown_seconds(response.max_seconds) if response.total else "–"
    return Card(
        "99.9 % within", shown_seconds(response.quantile_seconds(0.999)), f"the slowest took {worst}",
        _outcome(verdict, "p99_9"),
    )  # fmt: skip


def _drift_card(verdict: Verdict) -> Card:
    finding = _finding(verdict, "drift")
    if finding is None:
        return Card("Change over the run", "–", "not asked", None)
    judged = [drift for drift in verdict.drifts.values() if not drift.metric.is_stock and drift.doubt is None]
    if finding.outcome is Outcome.FAILED:
        worst = max((drift for drift in judged if drift.is_worse), key=lambda drift: abs(drift.change_ratio))
        return Card("Got worse by", shown(worst.change_ratio, Dimension.GROWTH), worst.metric.title, finding.outcome)
    if finding.outcome is Outcome.UNDECIDED:
        return Card("Change over the run", "unknown", "cannot be decided", finding.outcome)
    seen = max(drift.detectable_ratio for drift in judged)
    return Card("Change over the run", "none found", f"{seen * 100:.0f} % would have been", finding.outcome)


def what_was_run(figures: RunFigures) -> list[tuple[str, str]]:
    """Return what was run, when, and how much of it could be seen."""
    description, totals = figures.description, figures.totals
    ended = description.started_at.timestamp() + figures.covered_seconds
    end = description.started_at.fromtimestamp(ended, description.started_at.tzinfo)
    uncounted = totals.seconds_in((IntervalState.CLIENT_DOWN, IntervalState.LOST))
    seen = [f"{duration(totals.seconds_in(MEASURED))} measured"]
    if down := totals.seconds_in((IntervalState.SERVER_DOWN,)):
        seen.append(f"{duration(down)} with the server down, which counts against it")
    if uncounted:
        seen.append(f"{duration(uncounted)} without a runner or its record, which count for nobody")
    return [
        ("Server", description.server),
        ("Load", description.load),
        ("Time", f"{description.started_at:%d %b %Y %H:%M} to {end:%d %b %Y %H:%M} {end:%Z}"),
        ("Seen", "; ".join(seen)),
        ("Operations", f"{totals.due_total:,} came due, {totals.succeeded_total:,} succeeded"),
        *description.facts.items(),
    ]


def duration(seconds: float) -> str:
    """Return a length of time as people say it."""
    if not math.isfinite(seconds):
        return "–"
    factor, unit = (1.0, "s") if seconds < 120 else (1 / 60, "min") if seconds < 7200 else (1 / 3600, "h")
    return f"{f'{seconds * factor:.1f}'.removesuffix('.0')} {unit}"


def _finding(verdict: Verdict, name: str) -> Finding | None:
    return next((finding for finding in verdict.findings if finding.name == name), None)


def _outcome(verdict: Verdict, name: str) -> Outcome | None:
    finding = _finding(verdict, name)
    return finding.outcome if finding else None


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _lower(text: str) -> str:
    return text if text[:2].isupper() or text[:1].isdigit() else text[:1].lower() + text[1:]
