"""Let the tests of an application go through its retries without waiting for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ml_postgres_optimization.errors import UsageError


@dataclass(frozen=True, slots=True)
class _TestMode:
    attempts: int


_mode: _TestMode | None = None


@contextmanager
def retry_testing(*, attempts: int = 1) -> Iterator[None]:
    """Bound the attempts of every call of this process, and skip all waits, until the block ends.

    Parameters
    ----------
    attempts : int
        At most, where the policy does not allow fewer; 1 shows the first failure as it is.

    Notes
    -----
    Of the process, not of the thread, so that what a test starts in threads of its own is under it too. Budget,
    circuit and limiter are at work as ever: give the caller under test its own.
    """
    if attempts < 1:
        raise UsageError(f"{attempts!r} attempts are none.", "Give 1 or more.")
    global _mode  # noqa: PLW0603  (it is of the process)
    before, _mode = _mode, _TestMode(attempts)
    try:
        yield
    finally:
        _mode = before


def bounded_attempts(attempts: int) -> int:
    """Return how many attempts there are to be where a policy allows `attempts`."""
    return attempts if _mode is None else min(attempts, _mode.attempts)


def bounded_wait(seconds: float) -> float:
    """Return how long to wait where a policy says `seconds`."""
    return seconds if _mode is None else 0.0
