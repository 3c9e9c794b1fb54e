"""What a hook is told about a failure, and the hooks that come with it."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from dataclasses import dataclass
from typing import Any, Protocol

from ml_postgres_optimization.retry.classification import ErrorClass
from ml_postgres_optimization.retry.failures import Phase

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RetryDetails:
    """A failure of one attempt, and what comes of it."""

    name: str
    """What was called."""
    attempt: int
    """Which attempt failed, from 1."""
    error: BaseException
    """As the driver raised it."""
    sqlstate: str | None
    """Five characters; None where the driver gave none, or the failure is not the database's."""
    error_class: ErrorClass | None
    """The class that one lever prevents; None where the failure is not the database's."""
    phase: Phase
    """How far the attempt had come."""
    is_retried: bool
    """Whether another attempt follows."""
    why: str
    """The reason for that, as it follows "retried: " or "not retried: "."""
    wait_seconds: float
    """The wait before the next attempt; 0 where none follows."""
    elapsed_seconds: float
    """From the call until the failure, all attempts and waits before it included."""


class RetryHook(Protocol):
    """Hear of every failure."""

    def __call__(self, details: RetryDetails) -> None:
        """Take what happened; an exception of the hook is logged and ends nothing."""


class StructlogHook:
    """Write a line for every failure to a structlog logger.

    Parameters
    ----------
    logger : structlog logger
        ``structlog.get_logger()`` of the application's; anything with a ``warning`` that takes keywords will do.
    """

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def __call__(self, details: RetryDetails) -> None:
        """Log it: the text of the error is left out, since it may quote what the statement was about."""
        self._logger.warning(
            "retry" if details.is_retried else "retry given up",
            name=details.name,
            attempt=details.attempt,
            error=type(details.error).__name__,
            sqlstate=details.sqlstate,
            error_class=details.error_class,
            phase=details.phase,
            why=details.why,
            wait_seconds=round(details.wait_seconds, 6),
            elapsed_seconds=round(details.elapsed_seconds, 6),
        )


class RetryCounters:
    """Count failures by name, class and outcome.

    Notes
    -----
    Each failed attempt is counted once, in exactly one class; those that are not the database's under None. Thread
    safe.

    Examples
    --------
    >>> counters = RetryCounters()
    >>> dict(counters.retried), dict(counters.given_up)
    ({}, {})
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[bool, Counter[tuple[str, ErrorClass | None]]] = {True: Counter(), False: Counter()}

    def __call__(self, details: RetryDetails) -> None:
        """Count it."""
        with self._lock:
            self._counts[details.is_retried][details.name, details.error_class] += 1

    @property
    def retried(self) -> Counter[tuple[str, ErrorClass | None]]:
        """Failures that another attempt followed, by name and class."""
        with self._lock:
            return self._counts[True].copy()

    @property
    def given_up(self) -> Counter[tuple[str, ErrorClass | None]]:
        """Failures that went to the caller, by name and class."""
        with self._lock:
            return self._counts[False].copy()


def tell(hooks: tuple[RetryHook, ...], details: RetryDetails) -> None:
    """Tell every hook; one that fails keeps neither the others nor the call from going on."""
    for hook in hooks:
        try:
            hook(details)
        except Exception:
            _LOG.exception("a retry hook failed")
