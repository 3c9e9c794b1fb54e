"""A trained forest as a row of the database, whose functions then predict what it would in Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg.types.json import Jsonb

_COUNTED_FROM_ONE = frozenset({"roots", "feature", "left", "right"})


@dataclass(frozen=True, slots=True)
class CalibrationRecord:
    """A curve from a forest's raw probability of an error to the one that was observed.

    Parameters
    ----------
    error_class, method : str
    raw, observed : tuple of float
        Corners of the curve; straight in between.
    beats_naive : bool
        Whether the forecast of this class may be acted on.
    """

    error_class: str
    method: str
    raw: tuple[float, ...]
    observed: tuple[float, ...]
    beats_naive: bool


@dataclass(frozen=True, slots=True, eq=False)
class ForestRecord:
    """A trained forest, and what it takes to predict by it.

    Parameters
    ----------
    kind : str
        ``latency`` or ``errors``.
    model_id : str
        As in `PredictionRecord`.
    trained_at : datetime
    data_digest : str
        SHA-256 of what it was fitted on.
    beats_naive : bool
        Whether it may be acted on; one of errors, in one class at least.
    score : mapping
        Ready for JSON, but for numbers that are not finite.
    feature_names : tuple of str
    arrays : mapping of str to ndarray
        The nodes, counted from 0, as `models.forest.Forest.arrays` gives them.
    level : float
        How often an interval should hold the truth.
    factor, floor : float or None
    usual_log_seconds : tuple of float or None
        Of a forest of latency.
    calibrations : tuple of CalibrationRecord or None
        Of a forest of errors, one for each output.
    """

    kind: str
    model_id: str
    trained_at: datetime
    data_digest: str
    beats_naive: bool
    score: Mapping[str, Any]
    feature_names: tuple[str, ...]
    arrays: Mapping[str, NDArray[Any]] = field(repr=False)
    level: float
    factor: float | None = None
    floor: float | None = None
    usual_log_seconds: tuple[float, ...] | None = None
    calibrations: tuple[CalibrationRecord, ...] | None = None


def forest_parameters(forest: ForestRecord, server: str | None) -> dict[str, object]:
    """Return the parameters of ``repository/add_forest.sql``; `server` is the one whose windows it learned from."""
    plain = {name: getattr(forest, name) for name in ForestRecord.__slots__ if name != "arrays"}
    return {
        **plain,
        "server": server,
        **{name: _stored(name, array) for name, array in forest.arrays.items()},
        "score": Jsonb(_without_nan(forest.score)),
        "feature_names": list(forest.feature_names),
        "usual_log_seconds": None if forest.usual_log_seconds is None else list(forest.usual_log_seconds),
        "calibrations": None if forest.calibrations is None else Jsonb([_curve(one) for one in forest.calibrations]),
    }


def _stored(name: str, array: NDArray[Any]) -> list[Any]:
    """Return an array as PostgreSQL counts; the outputs of each node in a row."""
    counted = array + 1 if name in _COUNTED_FROM_ONE else array
    stored: list[Any] = counted.ravel().tolist()
    return stored


def _curve(calibration: CalibrationRecord) -> dict[str, object]:
    return {name: getattr(calibration, name) for name in CalibrationRecord.__slots__}


def _without_nan(score: Any) -> Any:
    """Return nested mappings of numbers with None for what JSON does not have."""
    if isinstance(score, Mapping):
        return {str(name): _without_nan(value) for name, value in score.items()}
    return score if np.isfinite(score) else None
