"""``explain``: what a trial changed, why, on what evidence, and which knobs mattered."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.interfaces.reporter import Result, Table, milliseconds
from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.interfaces.trial_view import interval_text, percent_change, shown
from ml_postgres_optimization.interfaces.workbench.learned import load_forest
from ml_postgres_optimization.knobs.catalogue import load_catalogue
from ml_postgres_optimization.models.knob_forest import KnobForest
from ml_postgres_optimization.target.postgres.repository import TrialRecord
from ml_postgres_optimization.trials import Arm, Interval, Pair, PairedTest, uneven

LAST = "last"
_MOST_STEPS = 12
_TIMES = {"mean_seconds": "mean", "p95_seconds": "95th percentile", "p99_seconds": "99th percentile"}
_COUNTS = {"checkpoints": "checkpoints", "autovacuums": "autovacuums"}


def explain(session: Session, *, trial: str) -> Result:
    """Explain one trial: what was changed and why, the evidence as it came, the effect, and which knobs mattered.

    Parameters
    ----------
    session : Session
    trial : str
        Its id, or ``last``.

    Raises
    ------
    UsageError
        If no trial of that name was recorded.
    """
    trials = session.repository().trials()
    if trial == LAST and not trials:
        return Result({}, [], ["No trial was recorded yet: there is nothing to explain."])
    record = _found(trials, trial)
    steps = list(_evidence(record))
    importance = _importance(session, record)
    document = {
        **_facts(record),
        "evidence": [{"pairs": pairs, "pair_ratio": ratio, **so_far._asdict()} for pairs, ratio, so_far in steps],
        "figures": dict(record.figures),
        "slower_parts": [part._asdict() for part in record.slower_parts],
        "importance": {
            name: {"mean": mean, "deviation": deviation} for name, (mean, deviation) in importance.items()
        },
    }
    tables = [
        _changes_table(record),
        _evidence_table(steps),
        _arms_table(record),
        *_slower_table(record),
        *_importance_table(importance),
    ]
    return Result(document, tables, list(_story(record)))


def _found(trials: Sequence[TrialRecord], wanted: str) -> TrialRecord:
    if wanted == LAST:
        return trials[-1]
    for trial in trials:
        if trial.id == wanted:
            return trial
    raise UsageError(
        f"No trial {wanted!r} was recorded.", "See them all: genesis-pg history; the newest one: genesis-pg explain."
    )


def _evidence(record: TrialRecord) -> Iterator[tuple[int, float, Interval]]:
    """Yield, after each pair, how many there were, the ratio of this one, and the interval so far."""
    test = PairedTest()
    for baseline_seconds, candidate_seconds, candidate_first in record.pairs:
        test.add(Pair(baseline_seconds, candidate_seconds, candidate_first))
        yield len(test), candidate_seconds / baseline_seconds, test.interval()


def _facts(record: TrialRecord) -> dict[str, object]:
    changes = record.candidate.difference(record.baseline)
    return {
        "id": record.id,
        "started_at": record.started_at.isoformat(),
        "ended_at": record.ended_at.isoformat(),
        "changes": {name: {"before": old, "after": new} for name, (old, new) in changes.items()},
        "origin": record.origin,
        "reason": record.reason,
        "predicted": {"ratio": record.predicted_ratio, "low": record.predicted_low, "high": record.predicted_high},
        "design": record.design,
        "outcome": record.outcome,
        "because": record.verdict_reason,
        "ratio": record.ratio,
        "ratio_low": record.ratio_low,
        "ratio_high": record.ratio_high,
    }


def _story(record: TrialRecord) -> Iterator[str]:
    minutes = (record.ended_at - record.started_at).total_seconds() / 60
    yield f"Trial {record.id}, {record.started_at:%Y-%m-%d %H:%M} UTC, {minutes:.1f} min, {record.design}"
    yield f"Proposed by {record.origin}: {record.reason}."
    if record.predicted_ratio is not None:
        low, high = record.predicted_low or 0.0, record.predicted_high or math.inf
        yield f"Expected: {interval_text(Interval(record.predicted_ratio, low, high))} in response time."
    effect = interval_text(Interval(record.ratio, record.ratio_low, record.ratio_high))
    yield f"Seen: {effect} in response time, over {len(record.pairs)} pairs of blocks."
    yield f"Verdict: {record.outcome}, for {record.verdict_reason}."
    if note := uneven(record.figures):
        yield f"Uneven between the arms: {note}."


def _changes_table(record: TrialRecord) -> Table:
    catalogue = load_catalogue()
    rows = [
        (
            name,
            shown(name, old, catalogue),
            shown(name, new, catalogue),
            catalogue[name].summary if name in catalogue else "",
        )
        for name, (old, new) in record.candidate.difference(record.baseline).items()
    ]
    return Table("What was tried", ("knob", "baseline", "candidate", "what it does"), rows, unbroken=1)


def _evidence_table(steps: Sequence[tuple[int, float, Interval]]) -> Table:
    """Return the evidence after some of the pairs, the last one among them."""
    every = max(1, math.ceil(len(steps) / _MOST_STEPS))
    told = [step for step in steps if (len(steps) - step[0]) % every == 0]
    rows = [(str(pairs), percent_change(ratio), interval_text(so_far)) for pairs, ratio, so_far in told]
    columns = ("pairs", "this pair", "so far (95 % interval, valid at every look)")
    return Table("The evidence as it came", columns, rows or [("0", "–", "–")])


def _arms_table(record: TrialRecord) -> Table:
    def both(name: str) -> tuple[float, float] | None:
        values = [record.figures.get(f"{arm}_{name}", math.nan) for arm in (Arm.BASELINE, Arm.CANDIDATE)]
        return None if any(math.isnan(value) for value in values) else (values[0], values[1])

    rows = [(text, *map(milliseconds, pair)) for name, text in _TIMES.items() if (pair := both(name))]
    if pair := both("error_ratio"):
        rows.append(("failed", *(f"{ratio:.2%}" for ratio in pair)))
    if pair := both("throughput_per_second"):
        rows.append(("operations/s", *(f"{rate:,.0f}" for rate in pair)))
    rows += [(text, *(f"{count:.0f}" for count in pair)) for name, text in _COUNTS.items() if (pair := both(name))]
    if pair := both("measured_seconds"):
        rows.append(("measured", *(f"{seconds:.0f} s" for seconds in pair)))
    return Table("Both arms, over all blocks", ("", "baseline", "candidate"), rows)


def _slower_table(record: TrialRecord) -> list[Table]:
    rows = [
        (part.part, f"{part.share:.1%}", interval_text(Interval(part.ratio, part.ratio_low, part.ratio_high)))
        for part in record.slower_parts
    ]
    columns = ("part", "share of the time", "response time")
    return [Table("Slower under the candidate, each taken for itself", columns, rows)] if rows else []


def _importance(session: Session, record: TrialRecord) -> dict[str, tuple[float, float]]:
    """Return what the forest of the knobs says of those that were tried, the greatest first."""
    loaded = load_forest(session, KnobForest)
    # what does not beat the naive forecast knows nothing of the knobs
    if loaded is None or not loaded.model.score.beats_naive:
        return {}
    tried = record.candidate.difference(record.baseline)
    known = {name: value for name, value in loaded.model.importance().items() if name in tried}
    return dict(sorted(known.items(), key=lambda item: -item[1][0]))


def _importance_table(importance: dict[str, tuple[float, float]]) -> list[Table]:
    rows = [(name, f"{mean:.4f}", f"± {deviation:.4f}") for name, (mean, deviation) in importance.items()]
    columns = ("knob", "error that it saves", "over 5 shuffles")
    title = "Which of them mattered, by the forest that learned from all windows (permutation importance)"
    return [Table(title, columns, rows, unbroken=1)] if rows else []
