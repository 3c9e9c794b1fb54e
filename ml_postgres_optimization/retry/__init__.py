"""Try again what will pass, find out what became of a COMMIT, and admit no more than a server bears.

Usable alone, with psycopg 3, psycopg 2, asyncpg or SQLAlchemy, none of which is imported here.
"""

from ml_postgres_optimization.retry.admission import ConcurrencyLimit, ConcurrencyLimiter, Prior, pgbouncer_lines
from ml_postgres_optimization.retry.breaker import Circuit, CircuitBreaker
from ml_postgres_optimization.retry.budget import RetryBudget
from ml_postgres_optimization.retry.calling import (
    RetryCounters,
    RetryDetails,
    RetryHook,
    RetryingCaller,
    StructlogHook,
    retry,
    retry_testing,
)
from ml_postgres_optimization.retry.classification import ErrorClass, error_class
from ml_postgres_optimization.retry.deadline import deadline
from ml_postgres_optimization.retry.failures import Failure, Permission, Phase, Remedy, failure_of, rule_for
from ml_postgres_optimization.retry.policy import Pause, RetryPolicy
from ml_postgres_optimization.retry.transactions import OPERATION_KEYS_TABLE, transaction

__all__ = [
    "OPERATION_KEYS_TABLE",
    "Circuit",
    "CircuitBreaker",
    "ConcurrencyLimit",
    "ConcurrencyLimiter",
    "ErrorClass",
    "Failure",
    "Pause",
    "Permission",
    "Phase",
    "Prior",
    "Remedy",
    "RetryBudget",
    "RetryCounters",
    "RetryDetails",
    "RetryHook",
    "RetryPolicy",
    "RetryingCaller",
    "StructlogHook",
    "deadline",
    "error_class",
    "failure_of",
    "pgbouncer_lines",
    "retry",
    "retry_testing",
    "rule_for",
    "transaction",
]
