"""Trained forests in schema genesis, where SQL predicts by them."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime

from ml_postgres_optimization.models.error_forest import ErrorForest
from ml_postgres_optimization.models.latency_forest import LatencyForest
from ml_postgres_optimization.models.score import LEVEL
from ml_postgres_optimization.target.postgres.repository import CalibrationRecord, ForestRecord


def forest_record(model: LatencyForest | ErrorForest, model_id: str, trained_at: datetime) -> ForestRecord:
    """Return a model as the repository keeps it."""
    if isinstance(model, LatencyForest):
        return _of_latency(model, model_id, trained_at)
    return _of_errors(model, model_id, trained_at)


def _of_latency(model: LatencyForest, model_id: str, trained_at: datetime) -> ForestRecord:
    return ForestRecord(
        kind=model.kind,
        model_id=model_id,
        trained_at=trained_at,
        data_digest=model.data_digest,
        beats_naive=model.score.beats_naive,
        score=asdict(model.score),
        feature_names=model.forest.names,
        arrays=model.forest.arrays(),
        level=model.changes.level,
        factor=model.changes.factor,
        floor=model.changes.floor,
        usual_log_seconds=model.usual,
    )


def _of_errors(model: ErrorForest, model_id: str, trained_at: datetime) -> ForestRecord:
    curves = [
        CalibrationRecord(str(name), curve.method, curve.raw, curve.observed, model.score[name].beats_naive)
        for name, curve in model.calibrations.items()
    ]
    return ForestRecord(
        kind=model.kind,
        model_id=model_id,
        trained_at=trained_at,
        data_digest=model.data_digest,
        beats_naive=any(curve.beats_naive for curve in curves),
        score={str(name): asdict(score) for name, score in model.score.items()},
        feature_names=model.forest.names,
        arrays=model.forest.arrays(),
        level=LEVEL,
        calibrations=tuple(curves),
    )
