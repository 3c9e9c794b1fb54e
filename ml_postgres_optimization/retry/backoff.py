"""How long to wait before the next attempt."""

from __future__ import annotations

import random


def full_jitter_seconds(
    attempt: int, *, base_seconds: float, cap_seconds: float, draw: random.Random | None = None
) -> float:
    """Return a wait drawn evenly from 0 to ``min(cap, base · 2^(attempt − 1))``.

    Parameters
    ----------
    attempt : int
        1 for the wait before the first repetition.
    base_seconds, cap_seconds : float
    draw : random.Random, optional
        Source of the jitter; the module's own when absent.

    Notes
    -----
    The jitter is full at the cap too: with a fixed part, everybody who has reached the cap comes back at once.

    References
    ----------
    M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015: of the variants compared there, full
    jitter needs the fewest calls.
    """
    # 2^63 s is longer than any cap: beyond it the power would only overflow
    ceiling = min(cap_seconds, base_seconds * 2.0 ** min(attempt - 1, 63))
    return (draw.random() if draw else random.random()) * ceiling


def lock_wait_seconds(
    attempt: int,
    *,
    base_seconds: float,
    cap_seconds: float,
    elapsed_seconds: float,
    draw: random.Random | None = None,
) -> float:
    """Return a wait for a lock that was queued for in vain: no longer than it is known to have been held.

    Drawn evenly from the upper half of the smaller of ``base · 2^(attempt − 1)``, capped, and `elapsed_seconds`.

    Parameters
    ----------
    attempt : int
        1 for the wait before the first repetition.
    base_seconds, cap_seconds : float
    elapsed_seconds : float
        Since the call began: for so long at least the lock has been held by others.
    draw : random.Random, optional
        Source of the jitter; the module's own when absent.

    Notes
    -----
    Nobody knows how long a lock will be held. Who waits no longer than he has waited already is served at the latest
    after twice the time at which it was let go, whatever that is and whatever `lock_timeout` is. Not from 0 on: who
    comes back at once finds the lock held, has spent one of few attempts, and stands in its queue with a session.
    Callers do not come back together, since they did not begin together.

    References
    ----------
    R. Baeza-Yates, J. Culberson, G. Rawlins, "Searching in the plane", Information and Computation 106, 1993:
    doubling is the best that can be done about an unknown distance, within a factor.
    docs/decisions/0027-retries.md.
    """
    ceiling = min(cap_seconds, base_seconds * 2.0 ** min(attempt - 1, 63), elapsed_seconds)
    return ceiling * (0.5 + 0.5 * (draw.random() if draw else random.random()))
