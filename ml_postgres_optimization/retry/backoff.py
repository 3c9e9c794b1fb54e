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
