"""Calls that are tried again."""

from ml_postgres_optimization.retry.calling.attempt import Attempt, current_attempt
from ml_postgres_optimization.retry.calling.caller import RetryingCaller, retry
from ml_postgres_optimization.retry.calling.course import Course, Terms
from ml_postgres_optimization.retry.calling.details import RetryCounters, RetryDetails, RetryHook, StructlogHook
from ml_postgres_optimization.retry.calling.testing import retry_testing

__all__ = [
    "Attempt",
    "Course",
    "RetryCounters",
    "RetryDetails",
    "RetryHook",
    "RetryingCaller",
    "StructlogHook",
    "Terms",
    "current_attempt",
    "retry",
    "retry_testing",
]
