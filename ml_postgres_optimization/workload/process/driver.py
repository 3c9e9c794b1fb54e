"""Workers that take operations from a lane, each with a connection of its own."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ml_postgres_optimization.retry import ConcurrencyLimit
from ml_postgres_optimization.retry.backoff import full_jitter_seconds
from ml_postgres_optimization.telemetry import SampleBatch
from ml_postgres_optimization.workload.mix import Mix
from ml_postgres_optimization.workload.plan import LoadArm
from ml_postgres_optimization.workload.process.messages import parts_of
from ml_postgres_optimization.workload.process.schedule import Schedule
from ml_postgres_optimization.workload.process.serving import Attempts, Call, Calls, Entry, Lane, SampleBuffer
from ml_postgres_optimization.workload.process.session import FAILURES, Opener, Session, sqlstate_of
from ml_postgres_optimization.workload.process.timer import PreciseTimer

# Connections that a process opens at the same time: a server forks a backend in about 2 ms, and more at once would
# only wait for each other and for the sessions at work.
_OPENING_AT_ONCE = 8
_RECONNECT_BASE_SECONDS = 0.1
_RECONNECT_CAP_SECONDS = 2.0
_EVERYBODY = LoadArm("", {})


@dataclass(slots=True, eq=False)
class _Seat:
    """Where a worker takes its operations from."""

    lane: Lane


class Driver:
    """Do what a schedule says, with at most so many operations at once.

    Parameters
    ----------
    open_session : callable
        Returns an awaitable that connects.
    mix : Mix
        Every kind of operation.
    queue_limit : int
        Operations that may wait in each lane; those beyond are counted as skipped.
    keeps_lag : bool
        Whether operations are due by a clock.
    coin : random.Random
        Divides workers and operations over arms.
    calls : Calls, optional
        What is repeated; nothing is when absent.
    new_limit : callable, optional
        Makes the limit of each arm's operations at work; as many are as there are workers when absent.

    Notes
    -----
    A worker is a task with one connection, open for as long as the worker lives: the server has as many sessions of
    ours as `set_connections` says, no idle ones beyond. A connection that breaks fails the operation that was on it,
    and is opened again with a growing, jittered pause, while the schedule goes on: what comes due waits, and its
    response time says so.

    Where the workers are divided, an operation counts for the arm whose session runs it, also if it ends after they
    were divided afresh.

    An operation that is repeated goes on in its own arm, as long as there is one.
    """

    def __init__(
        self,
        open_session: Opener,
        mix: Mix,
        *,
        queue_limit: int,
        keeps_lag: bool = True,
        coin: random.Random | None = None,
        calls: Calls | None = None,
        new_limit: Callable[[], ConcurrencyLimit] | None = None,
    ) -> None:
        self._open_session = open_session
        self._kinds = mix.names
        self._new_limit = new_limit
        self._limits: dict[str, ConcurrencyLimit] = {}
        self._ceiling: int | None = None
        self._queue_limit = queue_limit
        self._keeps_lag = keeps_lag
        self._coin = coin or random.Random()
        self._schedule: Schedule | None = None
        self._buffers: dict[str, SampleBuffer] = {}
        self._lanes = [self._lane(_EVERYBODY)]
        self._seats: list[_Seat] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._wanted = 0
        self._opening = asyncio.Semaphore(_OPENING_AT_ONCE)
        self._opened_total = 0
        self._stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._attempts = Attempts(mix, calls, stopped=self._stopped, lane_of=self._lane_of, follow=self._follow)
        self._jitter = random.Random()
        self._timer = PreciseTimer(asyncio.get_running_loop(), self._release)
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.connections_lost_total = 0
        self.connection_failures: Counter[str] = Counter()
        self.last_connection_failure: BaseException | None = None

    @property
    def is_complete(self) -> bool:
        """Whether every wanted connection has been opened."""
        return self._opened_total >= self._wanted

    @property
    def concurrency_limit(self) -> int | None:
        """How many operations at once were found to be best, in all arms together; None where nobody looks."""
        return sum(self._limits[lane.arm].settled for lane in self._lanes) if self._limits else None

    def take_batches(self) -> tuple[SampleBatch, ...]:
        """Return what has happened in each arm since the last call; an empty batch where nothing has."""
        batches = [buffer.take() for buffer in self._buffers.values()]
        return tuple(batch for batch in batches if not batch.is_empty) or (batches[0],)

    def set_connections(self, connections: int) -> None:
        """Serve with so many connections from now on; a worker beyond them ends with the operation it is at."""
        self._wanted = connections
        self._attempts.may_repeat = connections > 0
        while len(self._seats) < connections:
            seat = _Seat(self._lanes[len(self._seats) % len(self._lanes)])
            self._seats.append(seat)
            task = asyncio.get_running_loop().create_task(self._work(seat))
            self._tasks.add(task)
            task.add_done_callback(self._worker_ended)
        too_many = len(self._seats) - connections
        for lane in self._lanes:
            too_many -= lane.wake(too_many)
        if not connections:
            self._abandon_queues()

    def hold_below(self, ceiling: int | None) -> None:
        """Have no more than `ceiling` operations at work from now on, over all arms; None lifts it.

        What is at work ends, what waits goes on waiting, and no session is closed. Each arm has one at least.
        """
        self._ceiling = ceiling
        for lane, part in zip(self._lanes, parts_of(ceiling, len(self._lanes)), strict=True):
            lane.hold_below(part)

    def divide(self, arms: Sequence[LoadArm]) -> None:
        """Give each arm its part of the workers, drawn by lot; without arms, put all together again.

        Every session is SET what its arm says before its next operation, and plans its statements anew.
        """
        before, self._lanes = self._lanes, [self._lane(arm) for arm in arms or (_EVERYBODY,)]
        self._coin.shuffle(self._seats)
        for number, seat in enumerate(self._seats):
            seat.lane = self._lanes[number % len(self._lanes)]
        self.hold_below(self._ceiling)
        for lane in before:
            lane.wake(len(self._seats))
        for entry in sorted((entry for lane in before for entry in lane.queue), key=lambda entry: entry[0]):
            call = entry[2]
            if call is None:
                self._draw_lane().take(entry)
            else:
                self._lane_of(call).put_first(entry)

    def begin(self, schedule: Schedule, *, skip_before_seconds: float = -math.inf) -> None:
        """Follow `schedule`; what was due before `skip_before_seconds` is counted as skipped."""
        self._schedule = schedule
        overdue = schedule.due(skip_before_seconds) if skip_before_seconds > -math.inf else []
        self._lanes[0].buffer.due(len(overdue))
        self._lanes[0].buffer.skip(len(overdue))
        self._release()

    def schedule_changed(self) -> None:
        """Look at the schedule again, since its share has changed."""
        if self._schedule is not None:
            for lane in self._lanes:
                renewed = [
                    (operation if call else self._schedule.renewed(operation), lag, call)
                    for operation, lag, call in lane.queue
                ]
                lane.queue.clear()
                lane.queue.extend(renewed)
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
        # an operation whose session turned out to be lost was given back meanwhile
        self._abandon_queues()

    def _lane(self, arm: LoadArm) -> Lane:
        # by name: what a session of the arm is at when the workers are divided afresh counts for the same arm
        buffer = self._buffers.setdefault(
            arm.name, SampleBuffer(self._kinds, keeps_lag=self._keeps_lag, arm=arm.name)
        )
        if self._new_limit is not None and arm.name not in self._limits:
            self._limits[arm.name] = self._new_limit()
        return Lane(arm, buffer, self._queue_limit, self._limits.get(arm.name))

    def _draw_lane(self) -> Lane:
        return self._lanes[0] if len(self._lanes) == 1 else self._coin.choice(self._lanes)

    def _lane_of(self, call: Call) -> Lane:
        """Return the lane of a call's own arm, or any where that arm is no more."""
        return next((lane for lane in self._lanes if lane.arm == call.arm), None) or self._draw_lane()

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
        for operation in due:
            self._hand_out((operation, now - operation[0], None))
        if (next_due := self._schedule.next_due_seconds) < math.inf:
            self._timer.arm(next_due)

    def _hand_out(self, entry: Entry) -> None:
        lane = self._draw_lane()
        lane.buffer.due(1)
        lane.take(entry)

    def _abandon_queues(self) -> None:
        """Skip what waits, since nobody is left to do it; what was begun ends as its last attempt did."""
        self._attempts.end_all()
        for lane in self._lanes:
            for entry in lane.queue:
                if entry[2] is None:
                    lane.buffer.skip(1)
                else:
                    self._attempts.end(lane, entry)
                # a closed loop's clients leave with it
                if self._schedule is not None:
                    self._schedule.after(time.monotonic())
            lane.queue.clear()

    async def _work(self, seat: _Seat) -> None:
        session: Session | None = None
        try:
            while len(self._seats) <= self._wanted:
                if session is None or session.is_closed():
                    seat.lane.fill()
                    self.connections_lost_total += session is not None
                    session = await self._connect(seat)
                    continue
                lane = seat.lane
                if session.settings is not lane.settings:
                    lane.fill()
                    session = await self._arrange(session, lane)
                    continue
                entry = lane.pop() or await lane.wait()
                if entry is None:
                    continue
                if session.is_closed() or seat.lane is not lane:
                    lane.give_back(entry, seat.lane)
                else:
                    session = await self._attempts.make(session, lane, entry)
        finally:
            self._seats.remove(seat)
            seat.lane.fill()
            if session is not None:
                await session.close()

    async def _connect(self, seat: _Seat) -> Session | None:
        """Connect, however long it takes; None where the worker is not wanted any more."""
        attempt = 0
        while len(self._seats) <= self._wanted:
            try:
                async with self._opening:
                    session = await self._open_session(seat.lane.settings)
            except FAILURES as error:
                self._note_failure(error)
                attempt += 1
                await self._pause(attempt)
            else:
                self._opened_total += 1
                return session
        return None

    async def _arrange(self, session: Session, lane: Lane) -> Session | None:
        """SET what the lane wants; None where that fails, so that another session takes its place."""
        try:
            await session.arrange(lane.settings)
        except FAILURES as error:
            self._note_failure(error)
            await session.close()
            return None
        return session

    def _note_failure(self, error: BaseException) -> None:
        self.connection_failures[sqlstate_of(error, connecting=True).decode()] += 1
        self.last_connection_failure = error

    async def _pause(self, attempt: int) -> None:
        seconds = full_jitter_seconds(
            attempt, base_seconds=_RECONNECT_BASE_SECONDS, cap_seconds=_RECONNECT_CAP_SECONDS, draw=self._jitter
        )
        await asyncio.wait((self._stopped,), timeout=seconds)

    def _follow(self, end_seconds: float) -> None:
        """Hand out what the end of an operation brings."""
        if self._schedule is not None and (following := self._schedule.after(end_seconds)):
            self._hand_out((following, 0.0, None))
