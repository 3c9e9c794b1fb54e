"""Let Ctrl-C, SIGTERM and SIGHUP wait while something must not be left half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_DEFERRED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Hold SIGINT, SIGTERM and SIGHUP back until the block is over; then they take effect as they would have.

    Notes
    -----
    In another thread than the main one it does nothing, and need not: Python runs signal handlers in the main thread
    only. May be nested: the outermost block delivers. A signal that came several times is delivered once.

    Examples
    --------
    >>> with deferred_signals():
    ...     "no KeyboardInterrupt can come here"
    'no KeyboardInterrupt can come here'
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pending: dict[int, None] = {}

    def remember(number: int, _frame: FrameType | None) -> None:
        """Keep the signal for later."""
        pending[number] = None

    # A handler that was not installed from Python reads as None, and could not be put back.
    previous = {number: handler for number in _DEFERRED if (handler := signal.getsignal(number)) is not None}
    try:
        for number in previous:
            signal.signal(number, remember)
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        for waiting in pending:
            signal.raise_signal(waiting)
