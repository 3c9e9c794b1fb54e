"""What was learned from the windows: trained, stored, loaded, and said how good it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from ml_postgres_optimization.errors import ArtefactRefused, NotEnoughData, TargetError
from ml_postgres_optimization.interfaces.reporter import Table
from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.interfaces.workbench.stored import forest_record
from ml_postgres_optimization.models.artifact import Loaded, load_model, save_model
from ml_postgres_optimization.models.error_forest import ErrorForest
from ml_postgres_optimization.models.features import Table as FeatureTable
from ml_postgres_optimization.models.features import stream_observations
from ml_postgres_optimization.models.knob_forest import KnobForest
from ml_postgres_optimization.models.latency_forest import LatencyForest
from ml_postgres_optimization.models.score import ErrorScore, ForecastScore
from ml_postgres_optimization.target.postgres.repository import ForestRecord

AnyForest = LatencyForest | ErrorForest | KnobForest
Model = TypeVar("Model", LatencyForest, ErrorForest, KnobForest)
_FORESTS: tuple[type[LatencyForest] | type[ErrorForest] | type[KnobForest], ...] = (
    LatencyForest,
    ErrorForest,
    KnobForest,
)


@dataclass(frozen=True, slots=True)
class Lesson:
    """How the training of one forest went.

    Parameters
    ----------
    kind : str
        ``latency``, ``error`` or ``knobs``.
    trained : bool
    summary : str
        A sentence for the user: the score, or why there is none.
    may_be_trusted : bool
        Whether it beats the naive forecast, in one class of errors at least; without that it is not acted on.
    path : Path or None
        Where it was stored.
    in_database : bool
        Whether SQL predicts by it too.
    """

    kind: str
    trained: bool
    summary: str
    may_be_trusted: bool = False
    path: Path | None = None
    in_database: bool = False


def models_folder(session: Session) -> Path:
    """Return where the models of the session's server are stored."""
    return session.home.of_server(session.server) / "models"


def train_all(session: Session) -> tuple[Lesson, ...]:
    """Fit every forest to the recorded windows, and store what could be fitted."""
    repository = session.repository()
    configurations = repository.configurations()
    table = FeatureTable.of(stream_observations(repository.stream(), configurations))
    _tell_left_out(session, repository.unattributed_total())
    lessons, records = [], []
    for forest in _FORESTS:
        lesson, model = _train(session, forest, table)
        lessons.append(lesson)
        if lesson.path is not None and isinstance(model, LatencyForest | ErrorForest):
            records.append(forest_record(model, lesson.path.stem, session.clock.now()))
    are_stored = _stored_in_database(session, records)
    kinds = {record.kind for record in records if are_stored}
    return tuple(replace(lesson, in_database=lesson.kind in kinds) for lesson in lessons)


def _tell_left_out(session: Session, windows: int) -> None:
    if windows:
        session.reporter.say(
            f"{windows} windows were left out: several servers share this repository, and nobody said whose they are."
        )


def _train(session: Session, forest: type[AnyForest], table: FeatureTable) -> tuple[Lesson, AnyForest | None]:
    try:
        model = forest.fit(table, session.settings.seed)
    except NotEnoughData as error:
        return Lesson(forest.kind, trained=False, summary=error.what), None
    path = save_model(model, models_folder(session), clock=session.clock)
    lesson = Lesson(
        forest.kind,
        True,
        "; ".join(_judgements(model)) or "no class of error occurred often enough to learn",
        _may_be_trusted(model),
        path,
    )
    return lesson, model


def _stored_in_database(session: Session, records: Sequence[ForestRecord]) -> bool:
    """Store forests where SQL predicts by them; where that may not be, say so, for the files are there."""
    try:
        session.repository().add_forests(records)
    except TargetError as error:
        session.reporter.say(f"The forests are stored as files only. {error.what} {error.next_step}")
        session.log.warning("forests not in the database", what=error.what)
        return False
    return True


def _scores(model: AnyForest) -> Iterable[tuple[str, ForecastScore | ErrorScore]]:
    if isinstance(model, ErrorForest):
        return [(str(kind), score) for kind, score in model.score.items()]
    return [("latency" if isinstance(model, LatencyForest) else "effect of the knobs", model.score)]


def _judgements(model: AnyForest) -> Iterator[str]:
    for name, score in _scores(model):
        verdict = "better" if score.beats_naive else "no better"
        skill = f"skill {score.skill.ratio:.2f}, at least {score.skill.low:.2f}, over {score.windows} windows"
        yield f"{name}: {verdict} than the naive forecast ({skill})"


def _may_be_trusted(model: AnyForest) -> bool:
    return any(score.beats_naive for _, score in _scores(model))


def lesson_json(lesson: Lesson) -> dict[str, object]:
    """Return a lesson as JSON."""
    return {
        "kind": lesson.kind,
        "trained": lesson.trained,
        "may_be_trusted": lesson.may_be_trusted,
        "summary": lesson.summary,
        "path": str(lesson.path or ""),
        "in_database": lesson.in_database,
    }


def lessons_table(lessons: Iterable[Lesson]) -> Table:
    """Return a row for each forest."""
    trust = {True: "yes", False: "no: not acted on"}
    stored = {True: "yes", False: "no"}
    rows = [
        (lesson.kind, trust[lesson.may_be_trusted], stored[lesson.in_database], lesson.summary) for lesson in lessons
    ]
    return Table("What was learned", ("forest", "may be trusted", "in SQL", "how good on later windows"), rows)


def load_forest(session: Session, forest: type[Model]) -> Loaded[Model] | None:
    """Return the last good model of a kind, telling the user of refused ones; None where there is none."""
    try:
        loaded = load_model(forest, models_folder(session))
    except ArtefactRefused as error:
        session.reporter.say(str(error))
        return None
    for refused in loaded.refused if loaded else ():
        session.reporter.say(f"{refused} The last good one is used.")
    return loaded
