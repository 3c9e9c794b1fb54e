"""The time of one fault."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable

# how soon a fault notices that the program has come to its end without ending it
_LOOK_SECONDS = 0.2


class Spell:
    """How long one fault may last, and whether it was told to end before.

    Parameters
    ----------
    seconds : float
        From the moment that the fault is in force.
    seed : int
        Of what the fault draws.
    on_begin : callable, optional
        Called at that moment, in the thread of the fault.

    Attributes
    ----------
    draw : random.Random
    began_seconds : float or None
        Monotonic time of that moment.

    Notes
    -----
    It is over, too, when the program's main thread has ended: a fault never outlives its process.
    """

    def __init__(self, seconds: float, *, seed: int = 0, on_begin: Callable[[], None] | None = None) -> None:
        self.draw = random.Random(seed)
        self.began_seconds: float | None = None
        self._seconds = seconds
        self._on_begin = on_begin
        self._told = threading.Event()

    def begin(self) -> None:
        """Take that the fault is in force."""
        self.began_seconds = time.monotonic()
        if self._on_begin is not None:
            self._on_begin()

    def end(self) -> None:
        """Tell the fault to end; may be called from any thread, and again."""
        self._told.set()

    @property
    def was_cut_short(self) -> bool:
        """Whether it was told to end, or the program has ended."""
        return self._told.is_set() or not threading.main_thread().is_alive()

    @property
    def left_seconds(self) -> float:
        """How long the fault may still last; the whole time before it is in force."""
        if self.began_seconds is None:
            return self._seconds
        return max(0.0, self.began_seconds + self._seconds - time.monotonic())

    @property
    def is_over(self) -> bool:
        """Whether the fault has to end now."""
        return self.was_cut_short or self.left_seconds <= 0.0

    def wait(self, seconds: float = math.inf) -> bool:
        """Wait for `seconds`, or as long as the fault may last; return whether it has to end."""
        self.approach(min(seconds, self.left_seconds))
        return self.is_over

    def approach(self, seconds: float) -> bool:
        """Wait for `seconds` whether the fault is in force yet or not; return whether it was cut short."""
        until_seconds = time.monotonic() + seconds
        while not self.was_cut_short and (left := until_seconds - time.monotonic()) > 0.0:
            self._told.wait(min(left, _LOOK_SECONDS))
        return self.was_cut_short
