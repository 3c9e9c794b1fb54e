"""What failed, and what may be done about it."""

from ml_postgres_optimization.retry.failures.failure import Failure, Lost, causes, failure_of
from ml_postgres_optimization.retry.failures.phase import Phase
from ml_postgres_optimization.retry.failures.rules import Pace, Permission, Remedy, Rule, is_refusal, rule_for

__all__ = [
    "Failure",
    "Lost",
    "Pace",
    "Permission",
    "Phase",
    "Remedy",
    "Rule",
    "causes",
    "failure_of",
    "is_refusal",
    "rule_for",
]
