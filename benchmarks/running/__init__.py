"""How a benchmark is run, so that nothing of it stays behind."""

import signal
import sys
from collections.abc import Callable
from types import FrameType

_ENDED_BY_SIGNAL = 128
_ENDINGS = (signal.SIGTERM, signal.SIGHUP)


def run_benchmark(main: Callable[[], None]) -> None:
    """Run a benchmark; SIGTERM and a closed terminal do what Ctrl-C does, so that every context is left.

    Without that, Python ends where it stands: the embedded server, its folder and the load would stay.
    """
    for number in _ENDINGS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # under nohup a closed terminal is ignored, and stays so
            signal.signal(number, _leave)
    main()


def _leave(number: int, _frame: FrameType | None) -> None:
    for each in _ENDINGS:
        signal.signal(each, signal.SIG_IGN)  # a second one would cut the first one's leaving short
    sys.exit(_ENDED_BY_SIGNAL + number)
