"""What models see of a window and its configuration: documented numbers by name."""

from ml_postgres_optimization.models.features.context import LoadContext
from ml_postgres_optimization.models.features.encoding import encode_knob, encode_knobs, encode_text
from ml_postgres_optimization.models.features.extraction import features
from ml_postgres_optimization.models.features.registry import FEATURES, LOAD_CONTEXT, TELEMETRY, describe
from ml_postgres_optimization.models.features.table import (
    ERROR_CLASSES,
    Table,
    feature_matrix,
    observations,
    stream_observations,
)

__all__ = [
    "ERROR_CLASSES",
    "FEATURES",
    "LOAD_CONTEXT",
    "TELEMETRY",
    "LoadContext",
    "Table",
    "describe",
    "encode_knob",
    "encode_knobs",
    "encode_text",
    "feature_matrix",
    "features",
    "observations",
    "stream_observations",
]
