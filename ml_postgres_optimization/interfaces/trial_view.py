"""Trials and ledgers, for programs and for reading."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ml_postgres_optimization.interfaces.reporter import Table, milliseconds
from ml_postgres_optimization.knobs.catalogue import Catalogue
from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.knobs.knob import KnobValue
from ml_postgres_optimization.knobs.rendering import render
from ml_postgres_optimization.target.postgres.repository import SlowerPart, TrialRecord
from ml_postgres_optimization.trials import Interval, Measure, Outcome, Trial
from ml_postgres_optimization.tuning.ledger import Comparison, Ledger


def shown(name: str, value: KnobValue | None, catalogue: Mapping[str, object]) -> str:
    """Render a value with its unit, as an administrator would write it."""
    knob = catalogue.get(name)
    return "–" if value is None else render(value, getattr(knob, "unit", None))


def percent_change(ratio: float) -> str:
    """Render a ratio of times as a change: 0.6 becomes −40 %."""
    if math.isinf(ratio):
        return "+∞ %"
    percent = f"{(ratio - 1) * 100:+.0f} %"
    return "±0 %" if percent in {"+0 %", "-0 %"} else percent.replace("-", "−")


def is_open(interval: Interval) -> bool:
    """Tell whether an end of the interval is not known yet."""
    return not (interval.low > 0 and interval.high < math.inf)


def interval_text(interval: Interval) -> str:
    """Render a ratio of times with its interval."""
    if is_open(interval):
        return f"{percent_change(interval.ratio)} (interval still open)"
    return f"{percent_change(interval.ratio)} ({percent_change(interval.low)} to {percent_change(interval.high)})"


def changes_text(before: Configuration, after: Configuration, catalogue: Catalogue) -> str:
    """Render what differs, one knob a line."""
    difference = after.difference(before)
    return "\n".join(
        f"{name}: {shown(name, old, catalogue)} → {shown(name, new, catalogue)}"
        for name, (old, new) in difference.items()
    )


def effect_of(record: TrialRecord) -> Interval:
    """Return what a trial saw of its objective: candidate over baseline."""
    return Interval(record.ratio, record.ratio_low, record.ratio_high)


def verdict_text(record: TrialRecord) -> str:
    """Say in a few words how a trial ended, and what it saw."""
    if not record.pairs:
        return f"{record.outcome.capitalize()}: no pair of blocks could be compared"
    return f"{record.outcome.capitalize()}: {interval_text(effect_of(record))} in response time"


_FINDINGS: Mapping[str, str] = {
    Outcome.PROMOTED: "The change was kept",
    Outcome.PREFERRED: "A search went on with the change, unproven, and took it back at its end",
    Outcome.REJECTED: "The change was not kept",
    Outcome.EQUIVALENT: "The change makes no difference worth having, and was not kept",
    Outcome.UNDECIDED: "The evidence did not suffice, and the change was not kept",
    Outcome.ABORTED: "The trial was stopped, and the change put back",
}
PROOF = "proof"


def finding(record: TrialRecord) -> str:
    """Say in a sentence, for whoever reads no more, what came of a trial."""
    effect = effect_of(record)
    if record.origin == PROOF and record.pairs:
        kept = "was put back" if record.outcome == Outcome.PROMOTED else "was not put back"
        return (
            f"Measured afresh, what had been found makes a difference of {interval_text(effect.inverted)} "
            f"in response time; the initial configuration {kept}."
        )
    found = _FINDINGS.get(record.outcome, record.outcome)
    if record.outcome == Outcome.ABORTED or not record.pairs:
        return f"{found}: {record.verdict_reason}."
    return f"{found}: {interval_text(effect)} in response time, over {len(record.pairs)} pairs of blocks."


def effects_of(record: TrialRecord) -> dict[Measure, Interval]:
    """Return candidate over baseline by every measure that was kept; trials of earlier versions kept none."""
    names = {measure: [_figure_of_effect(measure, part) for part in Interval._fields] for measure in Measure}
    return {
        measure: Interval(*(record.figures[name] for name in parts))
        for measure, parts in names.items()
        if all(name in record.figures for name in parts)
    }


def _figure_of_effect(measure: Measure, part: str) -> str:
    return f"effect_{measure}_{part}"


def _figures_with_effects(trial: Trial) -> dict[str, float]:
    effects = {
        _figure_of_effect(measure, part): value
        for measure, effect in trial.effects.items()
        for part, value in effect._asdict().items()
    }
    return {**trial.figures, **effects}


def trial_record(trial: Trial) -> TrialRecord:
    """Return a trial as the repository keeps it."""
    verdict, proposal = trial.verdict, trial.proposal
    prediction = proposal.prediction
    return TrialRecord(
        id=trial.id,
        started_at=trial.started_at,
        ended_at=trial.ended_at,
        baseline=trial.baseline,
        candidate=proposal.configuration,
        origin=proposal.origin,
        reason=proposal.reason,
        outcome=str(verdict.outcome),
        ratio=verdict.ratio,
        ratio_low=verdict.ratio_low,
        ratio_high=verdict.ratio_high,
        verdict_reason=verdict.reason,
        pairs=tuple((pair.baseline_seconds, pair.candidate_seconds, pair.candidate_first) for pair in verdict.pairs),
        figures=_figures_with_effects(trial),
        predicted_ratio=prediction.value if prediction else None,
        predicted_low=prediction.low if prediction else None,
        predicted_high=prediction.high if prediction else None,
        design=str(trial.design),
        slower_parts=tuple(SlowerPart(effect.part, effect.share, *effect.ratio) for effect in trial.slower),
    )


def trial_json(trial: Trial) -> dict[str, object]:
    """Return a trial as JSON."""
    verdict = trial.verdict
    difference = trial.proposal.configuration.difference(trial.baseline)
    return {
        "id": trial.id,
        "started_at": trial.started_at.isoformat(),
        "ended_at": trial.ended_at.isoformat(),
        "origin": trial.proposal.origin,
        "reason": trial.proposal.reason,
        "changes": {name: {"before": old, "after": new} for name, (old, new) in difference.items()},
        "outcome": str(verdict.outcome),
        "because": verdict.reason,
        "ratio": verdict.ratio,
        "ratio_low": verdict.ratio_low,
        "ratio_high": verdict.ratio_high,
        "design": str(trial.design),
        "pairs": len(verdict.pairs),
        "figures": dict(trial.figures),
        "effects": {measure: effect._asdict() for measure, effect in trial.effects.items()},
        "slower_parts": [part._asdict() for part in trial_record(trial).slower_parts],
    }


def ledger_json(ledger: Ledger) -> dict[str, object]:
    """Return what all trials brought, as JSON."""
    accumulated = ledger.accumulated
    proven = ledger.proven
    return {
        "initial": {"id": ledger.initial.id, "values": dict(ledger.initial)},
        "in_force": {"id": ledger.incumbent.id, "values": dict(ledger.incumbent)},
        "trials": [trial_json(trial) for trial in ledger.trials],
        "accumulated": accumulated._asdict(),
        "proven": proven._asdict() if proven else None,
        "proof": trial_json(ledger.proof) if ledger.proof else None,
        "comparison": comparison_json(ledger.comparison) if ledger.comparison else None,
    }


def trials_table(ledger: Ledger, catalogue: Catalogue) -> Table:
    """Return a row for each trial."""
    rows = [
        (
            str(trial.verdict.outcome),
            changes_text(trial.baseline, trial.proposal.configuration, catalogue),
            interval_text(Interval(trial.verdict.ratio, trial.verdict.ratio_low, trial.verdict.ratio_high)),
            str(len(trial.verdict.pairs)),
            trial.proposal.origin,
        )
        for trial in ledger.trials
    ]
    return Table("Trials", ("outcome", "change", "response time", "pairs", "proposed by"), rows)


def slower_tables(ledger: Ledger) -> list[Table]:
    """Return a row for each part of the load that a candidate made slower; no table where there is none."""
    rows = [
        (trial.id, effect.part, f"{effect.share:.1%}", interval_text(effect.ratio))
        for trial in ledger.trials
        for effect in trial.slower
    ]
    columns = ("trial", "part", "share of the time", "response time")
    return [Table("Slower under a candidate, each taken for itself", columns, rows, unbroken=1)] if rows else []


def changed_table(ledger: Ledger, catalogue: Catalogue) -> Table:
    """Return a row for each knob that is in force now and was not at the start."""
    difference = ledger.incumbent.difference(ledger.initial)
    rows = [
        (name, shown(name, old, catalogue), shown(name, new, catalogue)) for name, (old, new) in difference.items()
    ]
    return Table("What was changed", ("knob", "before", "now"), rows or [("nothing", "", "")])


def measured_table(ledger: Ledger) -> Table:
    """Return base against optimised, measured in turns; of load that is not ours only the mean is known."""
    columns = ("response", "base", "optimised", "change (95 % interval)")
    if (comparison := ledger.comparison) is None:
        title, rows = _uncompared(ledger)
        return Table(title, columns, rows)
    rows = [
        (
            str(measure),
            milliseconds(comparison.initial_seconds.get(measure)),
            milliseconds(comparison.optimised_seconds.get(measure)),
            interval_text(ratio),
        )
        for measure, ratio in sorted(comparison.ratios.items())
    ]
    offered = "same offered load, " if Measure.P99 in comparison.ratios else ""
    source = "after all trials" if comparison.is_proof else "in the trial that was promoted"
    end = "" if ledger.incumbent != ledger.initial else "; base was faster and is in force again"
    return Table(
        f"What was measured: {offered}in turns, {comparison.pairs} pairs of blocks, {source}{end}", columns, rows
    )


def _uncompared(ledger: Ledger) -> tuple[str, list[tuple[str, str, str, str]]]:
    """Say what is known where no trial compares base with what is in force."""
    if ledger.incumbent == ledger.initial:
        title = "What was measured: nothing was proven better, so base stays in force"
        seconds = sorted(ledger.initial_seconds.items())
        return title, [(str(measure), milliseconds(value), "as base", "–") for measure, value in seconds]
    title = f"What was measured: {len(ledger.promoted)} promotions one after the other, not compared with base afresh"
    return title, [("objective", "–", "–", interval_text(ledger.accumulated))]


def comparison_json(comparison: Comparison) -> dict[str, object]:
    """Return base against optimised as JSON."""
    return {
        "proof": comparison.is_proof,
        "pairs": comparison.pairs,
        "initial_seconds": dict(comparison.initial_seconds),
        "optimised_seconds": dict(comparison.optimised_seconds),
        "ratios": {measure: ratio._asdict() for measure, ratio in comparison.ratios.items()},
    }
