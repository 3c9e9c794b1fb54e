"""Let in no more calls than a server bears, and let the others wait in a queue that ends."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TypeVar

from ml_postgres_optimization.errors import NotAdmitted, UsageError
from ml_postgres_optimization.retry.admission.limit import ConcurrencyLimit, Outcome
from ml_postgres_optimization.retry.admission.waiter import TaskWaiter, ThreadWaiter, Waiter
from ml_postgres_optimization.retry.classification import ErrorClass
from ml_postgres_optimization.retry.deadline import seconds_left
from ml_postgres_optimization.retry.failures import Pace, Phase, failure_of, rule_for

W = TypeVar("W", bound=Waiter)


class ConcurrencyLimiter:
    """A door to a server for threads and tasks alike.

    Parameters
    ----------
    limit : ConcurrencyLimit, optional
        How many are let in; one that learns from 8 on when absent.
    queue : int
        How many may wait; who comes then is sent away at once.
    wait_seconds : float
        How long one may wait, within the caller's deadline.
    monotonic_seconds : callable
        The time.

    Notes
    -----
    First come, first served. Thread safe; tasks of several event loops may use it together with threads.

    Examples
    --------
    >>> limiter = ConcurrencyLimiter(queue=0)
    >>> with limiter.acquire():
    ...     limiter.at_work
    1
    """

    def __init__(
        self,
        limit: ConcurrencyLimit | None = None,
        *,
        queue: int = 1000,
        wait_seconds: float = 30.0,
        monotonic_seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        if not (queue >= 0 and 0.0 <= wait_seconds < math.inf):
            raise UsageError(
                f"A queue of {queue!r} places and {wait_seconds!r} s is none.", "Give 0 or more of each."
            )
        self._limit = limit or ConcurrencyLimit(monotonic_seconds=monotonic_seconds)
        self._places = queue
        self._wait_seconds = wait_seconds
        self._now = monotonic_seconds
        self._state = threading.Lock()
        self._waiting: deque[Waiter] = deque()
        self._at_work = 0

    @property
    def at_work(self) -> int:
        """How many are in."""
        return self._at_work

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @property
    def limit(self) -> ConcurrencyLimit:
        """How many are let in, and what has been learnt of it."""
        return self._limit

    def hold_below(self, ceiling: int | None) -> None:
        """Let in no more than `ceiling` from now on, `Prior.ceiling` for one; None lifts it.

        Who is in stays in. Raises as `ConcurrencyLimit.hold_below` does.
        """
        with self._state:
            self._limit.hold_below(ceiling)
            self._let_in()

    def acquire(self, within_seconds: float = math.inf) -> Slot:
        """Wait to be let in; the slot is a context, and learns from what happens inside.

        Parameters
        ----------
        within_seconds : float
            How much time there is, if that is less than the limiter allows.

        Raises
        ------
        NotAdmitted
            If the queue is full, or the wait is over.
        """
        waiter = self._enter(ThreadWaiter)
        if waiter is not None:
            with self._in_queue(waiter):
                waiter.wait(self._patience_seconds(within_seconds))
        return Slot(self._limit.epoch, self._leave)

    async def acquire_async(self, within_seconds: float = math.inf) -> Slot:
        """Do the same in a task; the slot is entered with a plain ``with``."""
        waiter = self._enter(TaskWaiter)
        if waiter is not None:
            with self._in_queue(waiter):
                await waiter.wait(self._patience_seconds(within_seconds))
        return Slot(self._limit.epoch, self._leave)

    def _enter(self, kind: Callable[[], W]) -> W | None:
        """Go in, or take a place in the queue and return it."""
        with self._state:
            if self._at_work < self._limit.limit and not self._waiting:
                self._at_work += 1
                return None
            if len(self._waiting) >= self._places:
                raise NotAdmitted(
                    f"{self._at_work} calls are at work and {len(self._waiting)} wait, which is all that is allowed.",
                    "Come again later, or allow a longer queue.",
                )
            waiter = kind()
            self._waiting.append(waiter)
            return waiter

    @contextmanager
    def _in_queue(self, waiter: Waiter) -> Iterator[None]:
        """Wait inside; who was not let in meanwhile gives his place back."""
        began_seconds = self._now()
        try:
            yield
        except BaseException:
            # interrupted or cancelled: he may have been let in at the same moment
            self._give_up(waiter)
            raise
        if not self._is_let_in(waiter):
            raise NotAdmitted(
                f"{self._at_work} calls are at work, and {self._now() - began_seconds:.3f} s in the queue were not "
                "enough.",
                "Come again later, or wait longer.",
            )

    def _is_let_in(self, waiter: Waiter) -> bool:
        """Tell whether a waiter was let in; his place is gone in any case."""
        with self._state:
            if not waiter.is_let_in:
                self._waiting.remove(waiter)
            return waiter.is_let_in

    def _give_up(self, waiter: Waiter) -> None:
        with self._state:
            if waiter.is_let_in:
                self._at_work -= 1
            elif waiter in self._waiting:  # not where his loop was closed over him
                self._waiting.remove(waiter)
            self._let_in()

    def _leave(self, epoch: int, error: BaseException | None) -> None:
        with self._state:
            outcome = outcome_of(error)
            try:
                if outcome is not None:
                    self._limit.take(self._at_work, outcome, epoch=epoch, is_awaited=bool(self._waiting))
            finally:
                self._at_work -= 1
                self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self._at_work < self._limit.limit:
            self._at_work += self._waiting.popleft().let_in()

    def _patience_seconds(self, within_seconds: float) -> float:
        return max(0.0, min(self._wait_seconds, within_seconds, seconds_left()))


class Slot:
    """A place inside, until its block ends; made by a limiter."""

    __slots__ = ("_epoch", "_leave")

    def __init__(self, epoch: int, leave: Callable[[int, BaseException | None], None]) -> None:
        self._epoch, self._leave = epoch, leave

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave(self._epoch, error)


def outcome_of(error: BaseException | None) -> Outcome | None:
    """Return what a call's end says of how many the server bears; None where it says nothing."""
    if error is None:
        return Outcome.SUCCESS
    failure = failure_of(error)
    if failure is None:
        return None
    if rule_for(failure, Phase.IN_TRANSACTION).pace is Pace.SHORTAGE:
        return Outcome.SHORTAGE
    # what the driver refused by itself never reached the server
    is_drivers_own = failure.sqlstate is None and failure.error_class is ErrorClass.OTHER
    return None if is_drivers_own else _SAYS.get(failure.error_class)


_SAYS = {
    ErrorClass.SERIALIZATION: Outcome.IN_VAIN,
    ErrorClass.DEADLOCK: Outcome.IN_VAIN,
    ErrorClass.TIMEOUT: Outcome.IN_VAIN,
    # a constraint or a missing row: the server did its work
    ErrorClass.OTHER: Outcome.SUCCESS,
}
