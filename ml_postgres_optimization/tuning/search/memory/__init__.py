"""The memory of the search: Optuna studies, where they are kept, and what one tells another."""

from ml_postgres_optimization.tuning.search.memory.stored import Where, require_storage
from ml_postgres_optimization.tuning.search.memory.study import Asked, TuningStudy
from ml_postgres_optimization.tuning.search.memory.transfer import context_of, likeness

__all__ = ["Asked", "TuningStudy", "Where", "context_of", "likeness", "require_storage"]
