"""Workers that take operations from a queue, each with a connection of its own."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter, deque

from ml_postgres_optimization.retry.backoff import full_jitter_seconds
from ml_postgres_optimization.workload.process.buffer import SampleBuffer
from ml_postgres_optimization.workload.process.schedule import Operation, Schedule
from ml_postgres_optimization.workload.process.session import FAILURES, Opener, Session, sqlstate_of
from ml_postgres_optimization.workload.process.timer import PreciseTimer

# Connections that a process opens at the same time: a server forks a backend in about 2 ms, and more at once would
# only wait for each other and for the sessions at work.
_OPENING_AT_ONCE = 8
_RECONNECT_BASE_SECONDS = 0.1
_RECONNECT_CAP_SECONDS = 2.0
_CANCELLED = b"57014"

Entry = tuple[Operation, float]  # an operation, and how late the schedule noticed it


class Driver:
    """Do what a schedule says, with at most so many operations at once.

    Parameters
    ----------
    open_session : callable
        Returns an awaitable that connects.
    buffer : SampleBuffer
        Receives every finished operation.
    queue_limit : int
        Operations that may wait; those beyond are counted as skipped.

    Notes
    -----
    A worker is a task with one connection, open for as long as the worker lives: the server has as many sessions of
    ours as `set_connections` says, no idle ones beyond. A connection that breaks fails the operation that was on it,
    and is opened again with a growing, jittered pause, while the schedule goes on: what comes due waits, and its
    response time says so.
    """

    def __init__(self, open_session: Opener, buffer: SampleBuffer, *, queue_limit: int) -> None:
        self._open_session = open_session
        self._buffer = buffer
        self._queue_limit = queue_limit
        self._schedule: Schedule | None = None
        self._queue: deque[Entry] = deque()
        self._idle: list[asyncio.Future[Entry | None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._wanted = 0
        self._workers = 0
        self._opening = asyncio.Semaphore(_OPENING_AT_ONCE)
        self._opened_total = 0
        self._stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._jitter = random.Random()
        self._timer = PreciseTimer(asyncio.get_running_loop(), self._release)
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.due_total = 0
        self.connections_lost_total = 0
        self.connection_failures: Counter[str] = Counter()
        self.last_connection_failure: BaseException | None = None

    @property
    def is_complete(self) -> bool:
        """Whether every wanted connection has been opened."""
        return self._opened_total >= self._wanted

    def set_connections(self, connections: int) -> None:
        """Serve with so many connections from now on; a worker beyond them ends with the operation it is at."""
        self._wanted = connections
        while self._workers < connections:
            self._workers += 1
            task = asyncio.get_running_loop().create_task(self._work())
            self._tasks.add(task)
            task.add_done_callback(self._worker_ended)
        for _ in range(min(self._workers - connections, len(self._idle))):
            self._idle.pop().set_result(None)
        if not connections:
            self._abandon_queue()

    def begin(self, schedule: Schedule, *, skip_before_seconds: float = -math.inf) -> None:
        """Follow `schedule`; what was due before `skip_before_seconds` is counted as skipped."""
        self._schedule = schedule
        overdue = schedule.due(skip_before_seconds) if skip_before_seconds > -math.inf else []
        self.due_total += len(overdue)
        self._buffer.skip(len(overdue))
        self._release()

    def schedule_changed(self) -> None:
        """Look at the schedule again, since its share has changed."""
        if self._schedule is not None:
            self._queue = deque((self._schedule.renewed(operation), lag) for operation, lag in self._queue)
            self._release()

    async def stop(self, drain_seconds: float) -> None:
        """End: skip what waits, let running operations finish for `drain_seconds`, then cancel them."""
        self._timer.close()
        self._schedule = None
        self._stopped.set_result(None)
        self.set_connections(0)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=drain_seconds)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _worker_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._break(error)

    def _break(self, error: BaseException) -> None:
        if not self.broken.done():
            self.broken.set_exception(error)

    def _release(self) -> None:
        """Hand out what has come due, and wake again when the next is."""
        if self._schedule is None:
            return
        now = time.monotonic()
        try:
            due = self._schedule.due(now)
        except Exception as error:  # a rate shape is anybody's code; the loop would only log it, and fall silent
            self._break(error)
            return
        self.due_total += len(due)
        for operation in due:
            self._hand_out((operation, now - operation[0]))
        if (next_due := self._schedule.next_due_seconds) < math.inf:
            self._timer.arm(next_due)

    def _hand_out(self, entry: Entry) -> None:
        if self._idle:
            # the one that became idle last: its backend's caches are the warmest
            self._idle.pop().set_result(entry)
        elif len(self._queue) < self._queue_limit:
            self._queue.append(entry)
        else:
            self._buffer.skip(1)

    def _abandon_queue(self) -> None:
        """Skip what waits, since nobody is left to do it; a closed loop's clients leave with it."""
        self._buffer.skip(len(self._queue))
        for _ in self._queue:
            if self._schedule is not None:
                self._schedule.after(time.monotonic())
        self._queue.clear()

    async def _work(self) -> None:
        session: Session | None = None
        try:
            while self._workers <= self._wanted:
                if session is None or session.is_closed():
                    self.connections_lost_total += session is not None
                    session = await self._connect()
                    continue
                entry = self._queue.popleft() if self._queue else await self._wait()
                if entry is None:
                    continue
                if session.is_closed():
                    self._give_back(entry)
                else:
                    await self._perform(session, entry)
        finally:
            self._workers -= 1
            if session is not None:
                await session.close()

    async def _connect(self) -> Session | None:
        """Connect, however long it takes; None where the worker is not wanted any more."""
        attempt = 0
        while self._workers <= self._wanted:
            try:
                async with self._opening:
                    session = await self._open_session()
            except FAILURES as error:
                self.connection_failures[sqlstate_of(error, connecting=True).decode()] += 1
                self.last_connection_failure = error
                attempt += 1
                await self._pause(attempt)
            else:
                self._opened_total += 1
                return session
        return None

    async def _pause(self, attempt: int) -> None:
        seconds = full_jitter_seconds(
            attempt, base_seconds=_RECONNECT_BASE_SECONDS, cap_seconds=_RECONNECT_CAP_SECONDS, draw=self._jitter
        )
        await asyncio.wait((self._stopped,), timeout=seconds)

    async def _wait(self) -> Entry | None:
        waiter: asyncio.Future[Entry | None] = asyncio.get_running_loop().create_future()
        self._idle.append(waiter)
        return await waiter

    def _give_back(self, entry: Entry) -> None:
        """Let another worker do it: the connection broke while this one had nothing to do."""
        if self._idle:
            self._idle.pop().set_result(entry)
        else:
            self._queue.appendleft(entry)

    async def _perform(self, session: Session, entry: Entry) -> None:
        (due, kind_index, key, other_key, amount), lag = entry
        sqlstate = b""
        start = time.monotonic()
        try:
            performer = session.performers[kind_index] or await session.prepare(kind_index)
            await performer(key, other_key, amount)
        except FAILURES as error:
            sqlstate = sqlstate_of(error)
            session.forget(kind_index)
        except asyncio.CancelledError:
            sqlstate = _CANCELLED
            raise
        finally:
            end = time.monotonic()
            self._buffer.record(kind_index, due, start, end, lag_seconds=lag, sqlstate=sqlstate)
        if self._schedule is not None and (following := self._schedule.after(end)):
            self.due_total += 1
            self._hand_out((following, 0.0))
