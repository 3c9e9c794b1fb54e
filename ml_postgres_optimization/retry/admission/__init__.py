"""How many calls are let in at the same time."""

from ml_postgres_optimization.retry.admission.limit import ConcurrencyLimit, Outcome
from ml_postgres_optimization.retry.admission.limiter import ConcurrencyLimiter, Slot, outcome_of
from ml_postgres_optimization.retry.admission.pooler import pgbouncer_lines
from ml_postgres_optimization.retry.admission.prior import Prior

__all__ = ["ConcurrencyLimit", "ConcurrencyLimiter", "Outcome", "Prior", "Slot", "outcome_of", "pgbouncer_lines"]
