"""What was learned from the windows: trained, stored, loaded, and said how good it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ml_postgres_optimization.errors import ArtefactRefused, NotEnoughData
from ml_postgres_optimization.interfaces.reporter import Table
from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.models.artifact import Loaded, load_model, save_model
from ml_postgres_optimization.models.error_forest import ErrorForest
from ml_postgres_optimization.models.features import Table as FeatureTable
from ml_postgres_optimization.models.features import stream_observations
from ml_postgres_optimization.models.knob_forest import KnobForest
from ml_postgres_optimization.models.latency_forest import LatencyForest
from ml_postgres_optimization.models.score import ErrorScore, ForecastScore

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
    """

    kind: str
    trained: bool
    summary: str
    may_be_trusted: bool = False
    path: Path | None = None


def models_folder(session: Session) -> Path:
    """Return where the models of the session's server are stored."""
    return session.home.of_server(session.server) / "models"


def train_all(session: Session) -> tuple[Lesson, ...]:
    """Fit every forest to the recorded windows, and store what could be fitted."""
    repository = session.repository()
    configurations = repository.configurations()
    table = FeatureTable.of(stream_observations(repository.stream(), configurations))
    return tuple(_train(session, forest, table) for forest in _FORESTS)


def _train(session: Session, forest: type[AnyForest], table: FeatureTable) -> Lesson:
    try:
        model = forest.fit(table, session.settings.seed)
    except NotEnoughData as error:
        return Lesson(forest.kind, trained=False, summary=error.what)
    path = save_model(model, models_folder(session), clock=session.clock)
    return Lesson(
        forest.kind,
        True,
        "; ".join(_judgements(model)) or "no class of error occurred often enough to learn",
        _may_be_trusted(model),
        path,
    )


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
    }


def lessons_table(lessons: Iterable[Lesson]) -> Table:
    """Return a row for each forest."""
    trust = {True: "yes", False: "no: not acted on"}
    rows = [(lesson.kind, trust[lesson.may_be_trusted], lesson.summary) for lesson in lessons]
    return Table("What was learned", ("forest", "may be trusted", "how good on later windows"), rows)


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
