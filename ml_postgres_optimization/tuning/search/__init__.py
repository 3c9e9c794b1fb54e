"""What is searched, how, and the memory of it."""

from ml_postgres_optimization.tuning.search.candidates import TrustRegion
from ml_postgres_optimization.tuning.search.encoding import Axis, Cube, Idle, axes_of, axis_of
from ml_postgres_optimization.tuning.search.forest_sampler import ForestSampler
from ml_postgres_optimization.tuning.search.history import Lesson
from ml_postgres_optimization.tuning.search.memory import Asked, TuningStudy, Where, context_of, likeness
from ml_postgres_optimization.tuning.search.space import SearchSpace
from ml_postgres_optimization.tuning.search.surrogate import ForestSurrogate, log_expected_improvement

__all__ = [
    "Asked",
    "Axis",
    "Cube",
    "ForestSampler",
    "ForestSurrogate",
    "Idle",
    "Lesson",
    "SearchSpace",
    "TrustRegion",
    "TuningStudy",
    "Where",
    "axes_of",
    "axis_of",
    "context_of",
    "likeness",
    "log_expected_improvement",
]
