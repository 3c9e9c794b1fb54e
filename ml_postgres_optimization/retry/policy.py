"""How often, how long and how soon to try again."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.retry.failures import Pace, Permission


@dataclass(frozen=True, slots=True)
class Pause:
    """The longest wait before the first repetition, and before any."""

    base_seconds: float
    cap_seconds: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.base_seconds <= self.cap_seconds < math.inf:
            raise UsageError(
                f"A pause from {self.base_seconds!r} s, at most {self.cap_seconds!r} s, is none.",
                "Give a base of 0 s or more, and a cap that is not below it.",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often, how long and how soon to try again.

    Raises
    ------
    UsageError
        For a bound that bounds nothing.

    Notes
    -----
    The waits of each pace have full jitter, at the cap too; that for a lock that was queued for lies between half and
    the whole of what the call has taken so far, or of the doubled base where that is less. Attempts *and* time are
    bounded, whichever comes first; a wait that would end after the deadline is not begun.

    References
    ----------
    The bases: docs/decisions/0027-retries.md.
    """

    attempts: int = 5
    """Attempts at most, the first included."""
    total_seconds: float = 30.0
    """Time at most from the call on, waits and attempts together; the caller's own deadline may come sooner."""
    is_idempotent: bool = False
    """Whether doing the work twice does no harm, so that it may be repeated without knowing what became of it."""
    permissions: frozenset[Permission] = frozenset()
    """Failures that are tried again although most applications would not want it."""
    conflict: Pause = Pause(0.01, 1.0)
    """After a serialization failure or a deadlock."""
    lock: Pause = Pause(0.1, 5.0)
    """After a lock or a statement that ran into its time limit."""
    reconnect: Pause = Pause(0.2, 10.0)
    """After a connection was lost, or the server was not reached."""
    shortage: Pause = Pause(1.0, 20.0)
    """After the server or a pooler had no connection or no memory to give."""

    def __post_init__(self) -> None:
        if not (isinstance(self.attempts, int) and self.attempts >= 1):
            raise UsageError(f"{self.attempts!r} attempts are none.", "Give 1 or more.")
        if not 0.0 < self.total_seconds < math.inf:
            raise UsageError(
                f"A total of {self.total_seconds!r} s bounds nothing, or leaves no time.", "Give seconds above 0."
            )

    def pause(self, pace: Pace) -> Pause:
        """Return how long to wait at a pace."""
        return {
            Pace.CONFLICT: self.conflict,
            Pace.LOCK: self.lock,
            Pace.RECONNECT: self.reconnect,
            Pace.SHORTAGE: self.shortage,
        }[pace]
