"""Wake the event loop at an exact time."""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable

_CLOCK_MONOTONIC = 1
_TFD_TIMER_ABSTIME = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class PreciseTimer:
    """Call back at a point of monotonic time, some 20 to 60 µs late where a core is free.

    The timers of uvloop count whole milliseconds: rounded up they are 0.56 ms late on average, rounded down they
    spin. Both would go into every response time, or take the core that the server needs.

    Parameters
    ----------
    loop : asyncio.AbstractEventLoop
    callback : callable

    References
    ----------
    ``man 2 timerfd_create``; Python has it as ``os.timerfd_create`` from 3.13 on. Our measurement, 1,500 wake-ups a
    second: mean lag 0.06 ms at 3 % of a core, against 0.56 ms at 2 % for timers of the loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._spec = _Itimerspec()
        self._file = int(_LIBC.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC))
        if self._file < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        loop.add_reader(self._file, self._expired)

    def arm(self, at_seconds: float) -> None:
        """Call back at `at_seconds` of ``time.monotonic()``, at once where that is over; replaces what was armed."""
        seconds, fraction = divmod(at_seconds, 1.0)
        self._spec.value.seconds = int(seconds)
        self._spec.value.nanoseconds = int(fraction * 1e9)
        _LIBC.timerfd_settime(self._file, _TFD_TIMER_ABSTIME, ctypes.byref(self._spec), None)

    def close(self) -> None:
        """Never call back again."""
        if self._file >= 0:
            self._loop.remove_reader(self._file)
            os.close(self._file)
            self._file = -1

    def _expired(self) -> None:
        try:
            os.read(self._file, 8)
        except BlockingIOError:
            return  # it was armed anew between the wake-up and now
        self._callback()
