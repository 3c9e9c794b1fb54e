"""The time by which a caller wants an answer, known to everything that is called meanwhile."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from ml_postgres_optimization.errors import UsageError

_at_seconds: ContextVar[float] = ContextVar("genesis_deadline", default=math.inf)


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Bound the time of all retries inside, together with what they wait for.

    Parameters
    ----------
    seconds : float
        From now on. Inside another deadline the sooner one counts.

    Notes
    -----
    It bounds when attempts and waits may begin; it interrupts none. Give the driver or the session a time limit too.
    Tasks that are started inside know it; threads do not.

    Examples
    --------
    >>> with deadline(60):
    ...     0 < seconds_left() <= 60
    True
    """
    if math.isnan(seconds):
        raise UsageError("A deadline after nan seconds is none.", "Give a number of seconds.")
    token = _at_seconds.set(min(_at_seconds.get(), time.monotonic() + seconds))
    try:
        yield
    finally:
        _at_seconds.reset(token)


def seconds_left() -> float:
    """Return the seconds until the deadline of whoever asks; infinite where there is none, negative when over."""
    return _at_seconds.get() - time.monotonic()
