"""Each window's forecast of the next one: made, stored, and later scored against what happened."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ml_postgres_optimization.interfaces.reporter import Table
from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.interfaces.workbench.learned import load_forest
from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.models.error_forest import ErrorForest
from ml_postgres_optimization.models.features import stream_observations
from ml_postgres_optimization.models.latency_forest import LatencyForest
from ml_postgres_optimization.models.observation import Observation, Prediction
from ml_postgres_optimization.models.score import IntervalWidth
from ml_postgres_optimization.target.postgres.repository import PredictionRecord, PredictionScore
from ml_postgres_optimization.telemetry import Window
from ml_postgres_optimization.tuning.preventing import Foresight


def forecasts_table(scores: Sequence[PredictionScore]) -> Table:
    """Return a row for each kind of prediction: how many have come true, their error, the naive one, the coverage."""
    rows = [
        (
            score.kind,
            f"{score.scored} of {score.predictions}",
            _plain(score.mean_absolute_error),
            _plain(score.naive_mean_absolute_error),
            "–" if score.coverage is None else f"{score.coverage:.0%} (wanted {score.level:.0%})",
        )
        for score in scores
    ]
    columns = ("prediction", "scored", "mean error", "naive forecast's", "interval held")
    return Table("Predictions and what came true", columns, rows or [("none was made", "", "", "", "")])


def _plain(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


class Forecaster:
    """Predict latency and errors of the next window from the one that has just ended.

    Parameters
    ----------
    session : Session
        Whose stored models are used; a kind that was never trained is not predicted.

    Notes
    -----
    The interval of latency begins as it was calibrated, and is stretched by what came true since (`IntervalWidth`).
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._latency = load_forest(session, LatencyForest)
        self._errors = load_forest(session, ErrorForest)
        self._previous: Window | None = None
        self._next: tuple[Window, Prediction] | None = None
        self._width = IntervalWidth()
        self._seen: tuple[Window, Observation] | None = None

    def next_mean(self, window: Window) -> Prediction | None:
        """Return what was predicted after `window`, by a model that beats the naive forecast; None without one."""
        if self._next is None or self._next[0] is not window or self._latency is None:
            return None
        return self._next[1] if self._latency.model.score.beats_naive else None

    def foresight(self, window: Window) -> Foresight | None:
        """Return what the error forest says after `window`; None where none was trained, or it was not seen."""
        if self._seen is None or self._seen[0] is not window or self._errors is None:
            return None
        return Foresight(self._errors.model, self._errors.path.stem, self._seen[1])

    def predictions(self, window: Window, configuration: Configuration) -> Iterator[PredictionRecord]:
        """Yield what is to be expected of the window after `window`, if the configuration stays."""
        observation = self._observed(window, configuration)
        self._seen = window, observation
        if self._latency and window.operations_total:
            self._learn_width(observation)
            predicted = self._latency.model.predict(observation).stretched(self._width.ratio)
            self._next = window, predicted
            naive = window.response.mean_seconds
            yield self._record("latency_seconds", self._latency.path.stem, window, predicted, naive)
        if self._errors:
            for error_class, predicted in self._errors.model.predict(observation).items():
                kind = f"error_probability:{error_class}"
                yield self._record(kind, self._errors.path.stem, window, predicted, None)

    def _learn_width(self, observation: Observation) -> None:
        """See whether the last forecast held, where it was of this window under its configuration."""
        window, before = observation.window, observation.previous
        if self._next is None or before is not self._next[0] or before.configuration_id != window.configuration_id:
            return
        told = self._next[1]
        self._width = self._width.after(held=told.low <= window.response.mean_seconds <= told.high, level=told.level)

    def _observed(self, window: Window, configuration: Configuration) -> Observation:
        """Join `window` with the one before it as training does: only where that is adjacent and of the same run."""
        windows = [window] if self._previous is None else [self._previous, window]
        self._previous = window
        *_, observation = stream_observations(windows, {window.configuration_id: configuration})
        return observation

    def _record(
        self, kind: str, model_id: str, window: Window, predicted: Prediction, naive: float | None
    ) -> PredictionRecord:
        return PredictionRecord(
            kind=kind,
            model_id=model_id,
            made_at=self._session.clock.now(),
            window_started_at=window.ended_at,
            value=predicted.value,
            low=predicted.low,
            high=predicted.high,
            level=predicted.level,
            run=window.labels.get("run"),
            naive_value=naive,
            configuration_id=window.configuration_id,
        )
