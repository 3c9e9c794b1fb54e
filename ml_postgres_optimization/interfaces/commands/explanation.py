"""``explain``: what a trial changed, why, on what evidence, and which knobs mattered."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.interfaces.report import (
    Destination,
    LeftOut,
    Page,
    Picture,
    Section,
    render_page,
    write_all,
)
from ml_postgres_optimization.interfaces.report.changes import changes_picture
from ml_postgres_optimization.interfaces.report.effects import effects_picture
from ml_postgres_optimization.interfaces.report.evidence import Step, evidence, evidence_picture
from ml_postgres_optimization.interfaces.report.importance import importance_picture
from ml_postgres_optimization.interfaces.reporter import Result, Table, milliseconds
from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.interfaces.trial_view import (
    effect_of,
    effects_of,
    finding,
    interval_text,
    percent_change,
    shown,
)
from ml_postgres_optimization.interfaces.workbench.learned import load_forest
from ml_postgres_optimization.knobs.catalogue import load_catalogue
from ml_postgres_optimization.models.knob_forest import KnobForest
from ml_postgres_optimization.target.postgres.repository import TrialRecord
from ml_postgres_optimization.trials import Arm, Interval, Measure, uneven, unsettled

LAST = "last"
_MOST_STEPS = 12
_TIMES = {Measure.MEAN: "mean", Measure.P95: "95th percentile", Measure.P99: "99th percentile"}
_COUNTS = {"checkpoints": "checkpoints", "autovacuums": "autovacuums"}


def explain(session: Session, *, trial: str, report: Path | None = None, pictures: Path | None = None) -> Result:
    """Explain one trial: what was changed and why, the evidence as it came, the effect, and which knobs mattered.

    Parameters
    ----------
    session : Session
    trial : str
        Its id, or ``last``.
    report : Path, optional
        Where to write it all as one HTML file.
    pictures : Path, optional
        The folder for its pictures, as PNG.

    Raises
    ------
    UsageError
        If no trial of that name was recorded, or a file in the way was not made by us.
    StateError
        If a file cannot be written.
    """
    trials = session.repository().trials()
    if trial == LAST and not trials:
        nothing = "No trial was recorded yet: there is nothing to explain."
        return Result({"files": []}, [], [nothing, *(["Nothing was written."] if report or pictures else [])])
    told = _told(session, _found(trials, trial))
    drawn = told.drawn() if report or pictures else ()
    files = write_all(_destinations(told, drawn, report, pictures, made_at=session.clock.now()))
    lines = [*_story(told.record), *(f"Written: {path}" for path in files)]
    lines += [f"No picture of the {one.name}: {one.reason}" for one in drawn if isinstance(one, LeftOut)]
    return Result(_document(told, files), told.tables(), lines)


@dataclass(frozen=True, slots=True)
class _Told:
    """What is told of a trial."""

    record: TrialRecord
    steps: Sequence[Step]
    importance: Mapping[str, tuple[float, float]]
    unknown_because: str

    @property
    def tried(self) -> dict[str, tuple[float, float]]:
        """The importance of the knobs of this trial, the greatest first."""
        names = self.record.candidate.difference(self.record.baseline)
        known = {name: value for name, value in self.importance.items() if name in names}
        return dict(sorted(known.items(), key=lambda item: -item[1][0]))

    def tables(self) -> list[Table]:
        return [
            _changes_table(self.record),
            _evidence_table(self.steps),
            *_arms_table(self.record),
            *_slower_table(self.record),
            *_importance_table(self.tried),
        ]

    def drawn(self) -> tuple[Picture | LeftOut, ...]:
        names = self.record.candidate.difference(self.record.baseline)
        return (
            changes_picture(self.record, load_catalogue()),
            evidence_picture(self.record, self.steps),
            effects_picture(self.record),
            importance_picture(self.importance, names, self.unknown_because),
        )

    def page(self, drawn: Sequence[Picture | LeftOut], made_at: datetime) -> Page:
        record = self.record
        changes, evidence_drawn, effects, importance = drawn
        sections = (
            Section("The effect", (), [effects], [*_arms_table(record), *_slower_table(record)]),
            Section("What was changed", (), [changes], [_changes_table(record)]),
            Section("The evidence over time", (), [evidence_drawn], [_evidence_table(self.steps)]),
            Section("Which knobs mattered", (), [importance], _importance_table(self.tried)),
        )
        return Page(f"Trial {record.id}", finding(record), list(_story(record)), sections, made_at)


def _told(session: Session, record: TrialRecord) -> _Told:
    return _Told(record, tuple(evidence(record)), *_importance(session))


def _destinations(
    told: _Told,
    drawn: Sequence[Picture | LeftOut],
    report: Path | None,
    pictures: Path | None,
    *,
    made_at: datetime,
) -> Iterator[Destination]:
    if report:
        yield Destination(report, render_page(told.page(drawn, made_at)).encode(), "--report")
    if pictures:
        # an id comes from the database, and must not lead out of the folder
        trial = re.sub(r"[^\w.-]", "_", told.record.id).lstrip(".")
        for picture in drawn:
            if isinstance(picture, Picture):
                yield Destination(pictures / f"{trial}-{picture.name}.png", picture.png, "--pictures")


def _document(told: _Told, files: Sequence[Path]) -> dict[str, object]:
    record = told.record
    effects = {str(measure): effect._asdict() for measure, effect in effects_of(record).items()}
    return {
        **_facts(record),
        "evidence": [
            {"pairs": step.pairs, "pair_ratio": step.pair_ratio, **step.so_far._asdict()} for step in told.steps
        ],
        "figures": {name: value for name, value in record.figures.items() if not name.startswith("effect_")},
        "effects": effects,
        "slower_parts": [part._asdict() for part in record.slower_parts],
        "importance": {
            name: {"mean": mean, "deviation": deviation} for name, (mean, deviation) in told.tried.items()
        },
        "importance_unknown_because": told.unknown_because,
        "files": [str(path) for path in files],
    }


def _found(trials: Sequence[TrialRecord], wanted: str) -> TrialRecord:
    if wanted == LAST:
        return trials[-1]
    for trial in trials:
        if trial.id == wanted:
            return trial
    raise UsageError(
        f"No trial {wanted!r} was recorded.", "See them all: genesis-pg history; the newest one: genesis-pg explain."
    )


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
        "settle_seconds": record.figures.get("settle_seconds"),
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
    yield f"Seen: {interval_text(effect_of(record))} in response time, over {len(record.pairs)} pairs of blocks."
    yield f"Verdict: {record.outcome}, for {record.verdict_reason}."
    if (seconds := record.figures.get("settle_seconds")) is not None:
        note = unsettled(record.figures)
        yield f"Discarded before each block: {seconds:.1f} s{'; ' + note if note else ''}."
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


def _evidence_table(steps: Sequence[Step]) -> Table:
    """Return the evidence after some of the pairs, the last one among them."""
    every = max(1, math.ceil(len(steps) / _MOST_STEPS))
    told = [step for step in steps if (len(steps) - step.pairs) % every == 0]
    rows = [(str(step.pairs), percent_change(step.pair_ratio), interval_text(step.so_far)) for step in told]
    columns = ("pairs", "this pair", "so far (95 % interval, valid at every look)")
    return Table("The evidence as it came", columns, rows or [("0", "–", "–")])


def _arms_table(record: TrialRecord) -> list[Table]:
    def both(name: str) -> tuple[float, float] | None:
        values = [record.figures.get(f"{arm}_{name}", math.nan) for arm in (Arm.BASELINE, Arm.CANDIDATE)]
        return None if any(math.isnan(value) for value in values) else (values[0], values[1])

    effects = effects_of(record)
    rows = [
        (text, *map(milliseconds, pair), interval_text(effects[measure]) if measure in effects else "–")
        for measure, text in _TIMES.items()
        if (pair := both(f"{measure}_seconds"))
    ]
    if pair := both("error_ratio"):
        rows.append(("failed", *(f"{ratio:.2%}" for ratio in pair), ""))
    if pair := both("throughput_per_second"):
        rows.append(("operations/s", *(f"{rate:,.0f}" for rate in pair), ""))
    rows += [
        (text, *(f"{count:.0f}" for count in pair), "") for name, text in _COUNTS.items() if (pair := both(name))
    ]
    if pair := both("measured_seconds"):
        rows.append(("measured", *(f"{seconds:.0f} s" for seconds in pair), ""))
    columns = ("", "baseline", "candidate", "change (95 % interval)")
    return [Table("Both arms, over all blocks", columns, rows)] if rows else []


def _slower_table(record: TrialRecord) -> list[Table]:
    rows = [
        (part.part, f"{part.share:.1%}", interval_text(Interval(part.ratio, part.ratio_low, part.ratio_high)))
        for part in record.slower_parts
    ]
    columns = ("part", "share of the time", "response time")
    return [Table("Slower under the candidate, each taken for itself", columns, rows)] if rows else []


def _importance(session: Session) -> tuple[Mapping[str, tuple[float, float]], str]:
    """Return what the forest of the knobs says of each, or why it says nothing."""
    loaded = load_forest(session, KnobForest)
    if loaded is None:
        return {}, "no forest has learned from the windows yet; genesis-pg train does that."
    if not loaded.model.score.beats_naive:
        return {}, "the forest does not beat the forecast that ignores the knobs, so it knows nothing of them."
    if not (importance := loaded.model.importance()):
        return {}, "no knob varied in the windows that the forest was judged on."
    return importance, ""


def _importance_table(importance: Mapping[str, tuple[float, float]]) -> list[Table]:
    rows = [(name, f"{mean:.4f}", f"± {deviation:.4f}") for name, (mean, deviation) in importance.items()]
    columns = ("knob", "error that it saves", "standard error")
    title = "Which of them mattered, by the forest that learned from all windows (permutation importance)"
    return [Table(title, columns, rows, unbroken=1)] if rows else []
