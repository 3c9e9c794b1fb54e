"""How long a process stood still to collect garbage."""

from __future__ import annotations

import gc
import time
from typing import Self


class GarbageTimer:
    """Count the time that Python's collector takes in this process; a context manager.

    Examples
    --------
    >>> with GarbageTimer() as timer:
    ...     _ = gc.collect()
    ...     timer.take_seconds() > 0, timer.take_seconds()
    (True, 0.0)
    """

    def __init__(self) -> None:
        self._since = self._seconds = 0.0

    def __enter__(self) -> Self:
        gc.callbacks.append(self._called)
        return self

    def __exit__(self, *_error: object) -> None:
        gc.callbacks.remove(self._called)

    def take_seconds(self) -> float:
        """Return what it has taken since the last call."""
        taken, self._seconds = self._seconds, 0.0
        return taken

    def _called(self, phase: str, _info: object) -> None:
        if phase == "start":
            self._since = time.perf_counter()
        else:
            self._seconds += time.perf_counter() - self._since
