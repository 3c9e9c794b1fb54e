"""What waits for the sessions of one arm, and the sessions that wait for work."""

from __future__ import annotations

import asyncio
from collections import deque

from ml_postgres_optimization.retry import ConcurrencyLimit
from ml_postgres_optimization.retry.admission import outcome_of
from ml_postgres_optimization.workload.plan import LoadArm
from ml_postgres_optimization.workload.process.schedule import Operation
from ml_postgres_optimization.workload.process.serving.buffer import SampleBuffer
from ml_postgres_optimization.workload.process.serving.call import Call

# an operation, how late the schedule noticed it, and its call, where it was begun and may be repeated
Entry = tuple[Operation, float, Call | None]


class Lane:
    """A queue of operations with sessions of its own; there is one for all, unless the sessions are divided.

    Parameters
    ----------
    arm : LoadArm
        Whose sessions they are, and what is SET in them.
    buffer : SampleBuffer
        Receives what they finish.
    queue_limit : int
        Operations that may wait; those beyond are counted as skipped.
    limit : ConcurrencyLimit, optional
        How many may be at work; as many as there are sessions when absent.

    Notes
    -----
    The queue is the only one: a limiter's own, with a lock, and an event for each that waits, would cost what a fast
    operation costs. Whoever has an operation has a place, one of few where there is a limit or a ceiling, until
    `leave`, `give_back` or `vacate`; then it asks for the next one at once, or calls `fill`, so that none is left to
    wait for nobody.
    """

    def __init__(
        self, arm: LoadArm, buffer: SampleBuffer, queue_limit: int, limit: ConcurrencyLimit | None = None
    ) -> None:
        self.arm = arm.name
        # an object of its own, by which a session sees whether it was arranged for this lane
        self.settings = dict(arm.settings)
        self.buffer = buffer
        self.queue: deque[Entry] = deque()
        self.limit = limit
        self._idle: list[asyncio.Future[Entry | None]] = []
        self._queue_limit = queue_limit
        self._at_work = 0
        self._ceiling: int | None = None
        self._is_unbounded = limit is None

    def take(self, entry: Entry) -> None:
        """Have an operation done as soon as a session is free."""
        if self._idle and (self._is_unbounded or (self._has_room() and not self.queue)):
            self._hand(entry)
        elif len(self.queue) < self._queue_limit:
            self.queue.append(entry)
        else:
            self.buffer.skip(1)

    def put_first(self, entry: Entry) -> None:
        """Have an operation done before those that wait."""
        self.queue.appendleft(entry)
        self.fill()

    def pop(self) -> Entry | None:
        """Return the operation that waits longest, if one waits and may be done now."""
        if not self.queue:
            return None
        if not self._has_room():
            return None
        self._at_work += 1
        entry = self.queue.popleft()
        if not self._is_unbounded:
            self.fill()  # the limit may have grown
        return entry

    async def wait(self) -> Entry | None:
        """Wait for an operation; None where there is something else to look after."""
        waiter: asyncio.Future[Entry | None] = asyncio.get_running_loop().create_future()
        self._idle.append(waiter)
        return await waiter

    def leave(self, error: BaseException | None, epoch: int) -> None:
        """Give the place back after an attempt that ended with `error`, if with any, so that the limit learns.

        `epoch` is that of the limit when the attempt began.
        """
        if self.limit is not None and (outcome := outcome_of(error)) is not None:
            self.limit.take(self._at_work, outcome, epoch=epoch, is_awaited=bool(self.queue))
        self._at_work -= 1

    def vacate(self) -> None:
        """Give the place back without having sent anything."""
        self._at_work -= 1

    def give_back(self, entry: Entry, to: Lane | None = None) -> None:
        """Give the place back, and let another session do the operation; one of another lane if need be."""
        self.vacate()
        (to or self).put_first(entry)

    def hold_below(self, ceiling: int | None) -> None:
        """Have no more than `ceiling` at work from now on, whatever the limit has learnt; None lifts it."""
        self._ceiling = ceiling
        self._is_unbounded = self.limit is None and ceiling is None
        if self.limit is not None:
            # it learns nothing from what it did not choose, and goes below its own least for nobody
            self.limit.hold_below(None if ceiling is None else max(ceiling, self.limit.least))
        self.fill()

    def fill(self) -> None:
        """Hand out what waits to those that wait, as far as there is room."""
        while self.queue and self._idle and self._has_room():
            self._hand(self.queue.popleft())

    def wake(self, most: int) -> int:
        """Wake so many of the sessions that wait, and return how many there were."""
        woken = max(0, min(most, len(self._idle)))
        for _ in range(woken):
            self._idle.pop().set_result(None)
        return woken

    def _has_room(self) -> bool:
        if self.limit is not None:
            return self._at_work < self.limit.limit
        return self._ceiling is None or self._at_work < self._ceiling

    def _hand(self, entry: Entry) -> None:
        self._at_work += 1
        # the one that became idle last: its backend's caches are the warmest
        self._idle.pop().set_result(entry)
