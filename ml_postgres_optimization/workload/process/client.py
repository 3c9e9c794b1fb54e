"""What a client process does between its first message and its last."""

from __future__ import annotations

import asyncio
import gc
import itertools
import math
import os
import queue
import random
import threading
import time
from collections.abc import Mapping
from functools import partial
from multiprocessing.connection import Connection as Channel

from ml_postgres_optimization.workload.arrival import Stream, ZipfKeys
from ml_postgres_optimization.workload.process.driver import Driver
from ml_postgres_optimization.workload.process.garbage import GarbageTimer
from ml_postgres_optimization.workload.process.messages import (
    Assignment,
    Failure,
    Position,
    Ready,
    Report,
    Share,
    Start,
    Stop,
)
from ml_postgres_optimization.workload.process.schedule import ClosedLoop, OpenLoop, Schedule
from ml_postgres_optimization.workload.process.serving import Calls
from ml_postgres_optimization.workload.process.session import Session, preparer, session_defaults, sqlstate_of

_START_POLL_SECONDS = 0.005
# Sessions are numbered over all processes; no process has opened so many.
_SESSIONS_PER_PROCESS = 100_000


class Client:
    """One client process of the load generator, seen from inside.

    Parameters
    ----------
    channel : multiprocessing.connection.Connection
        To the parent. When it breaks, the parent is gone, and the process ends at once.
    assignment : Assignment
    """

    def __init__(self, channel: Channel, assignment: Assignment) -> None:
        self._channel = channel
        self._assignment = assignment
        self._share = assignment.share
        plan = assignment.plan
        self._stream = Stream(plan.seed, assignment.worker, ZipfKeys(assignment.key_count, assignment.zipf_exponent))
        # in the closed loop every client may wait, and none is ever skipped
        queue_limit = plan.queue_limit if plan.is_open_loop else 2 * plan.clients
        self._driver = Driver(
            self._open_session,
            self._share.mix,
            queue_limit=queue_limit,
            keeps_lag=plan.is_open_loop,
            coin=random.Random(f"{plan.seed}/{assignment.worker}"),
            calls=Calls(plan.retries, self._share.mix) if plan.retries else None,
            new_limit=partial(plan.limiter.limit, plan.seed + assignment.worker) if plan.limiter else None,
        )
        self._driver.divide(assignment.share.arms)
        self._driver.hold_below(assignment.share.ceiling)
        self._session_numbers = itertools.count(assignment.worker * _SESSIONS_PER_PROCESS)
        self._schedule: Schedule | None = None
        self._loop = asyncio.get_running_loop()
        self._stop: asyncio.Future[Stop] = self._loop.create_future()
        self._outbox: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._garbage = GarbageTimer()

    async def run(self) -> None:
        """Connect, follow the schedule until told to stop, and report again and again."""
        # in threads, since a loop would make the pipe non-blocking: sending to a full one would then fail
        threading.Thread(target=self._receive_all, name="receiver", daemon=True).start()
        sender = threading.Thread(target=self._send_all, name="sender", daemon=True)
        sender.start()
        self._driver.set_connections(self._share.connections)
        starting = self._loop.create_task(self._announce())
        # what is there by now stays for good: the collector need not look at it again
        gc.freeze()
        with self._garbage:
            while not self._stop.done():
                await asyncio.wait((self._stop, self._driver.broken), timeout=self._assignment.plan.report_seconds)
                if self._driver.broken.done():
                    self._driver.broken.result()
                self._report()
        starting.cancel()
        await self._driver.stop(self._stop.result().drain_seconds)
        self._report(is_last=True)
        self._outbox.put(None)
        sender.join()

    async def _open_session(self, settings: Mapping[str, str]) -> Session:
        mix, assignment = self._share.mix, self._assignment
        beginning = {**session_defaults(mix), **assignment.plan.session_settings}
        prepare = preparer(
            mix,
            account_count=assignment.account_count,
            session_number=next(self._session_numbers),
            ledger=assignment.plan.ledger,
        )
        return await Session.open(assignment.connect, prepare, mix.shares, beginning=beginning, settings=settings)

    async def _announce(self) -> None:
        """Tell the parent that all connections are open, or why one is not."""
        while not self._driver.is_complete:
            if (error := self._driver.last_connection_failure) is not None:
                self._outbox.put(Failure(reason_of(error), sqlstate_of(error, connecting=True).decode()))
                return
            await asyncio.sleep(_START_POLL_SECONDS)
        self._outbox.put(Ready())

    def _obey(self, message: object) -> None:
        match message:
            case Start():
                self._begin(message)
            case Share():
                self._change(message)
            case Stop() if not self._stop.done():
                self._stop.set_result(message)

    def _change(self, share: Share) -> None:
        before, self._share = self._share, share
        if self._schedule is not None:
            self._schedule.change(share)
        self._driver.set_connections(share.connections)
        if share.turn > before.turn:
            self._driver.divide(share.arms)
        if share.ceiling != before.ceiling:
            self._driver.hold_below(share.ceiling)
        self._driver.schedule_changed()

    def _begin(self, start: Start) -> None:
        if self._share.rate_per_second is None:
            self._schedule = ClosedLoop(self._stream, self._share)
            self._driver.begin(self._schedule)
            return
        self._schedule = OpenLoop(
            self._stream,
            self._share,
            self._assignment.plan.rate_shape,
            start.schedule_start_seconds,
            start.position or Position(),
        )
        self._driver.begin(self._schedule, skip_before_seconds=time.monotonic() if start.position else -math.inf)

    def _report(self, *, is_last: bool = False) -> None:
        driver = self._driver
        self._outbox.put(
            Report(
                batches=driver.take_batches(),
                connections_lost_total=driver.connections_lost_total,
                connection_failures=dict(driver.connection_failures),
                concurrency_limit=driver.concurrency_limit,
                position=self._schedule.position if self._schedule else None,
                at_seconds=time.monotonic(),
                cpu_seconds=time.process_time(),
                garbage_seconds=self._garbage.take_seconds(),
                is_last=is_last,
            )
        )
        driver.connections_lost_total = 0
        driver.connection_failures.clear()

    def _receive_all(self) -> None:
        """Pass on what the parent says; without a parent nobody is left to work for."""
        try:
            while True:
                self._loop.call_soon_threadsafe(self._obey, self._channel.recv())
        except (EOFError, OSError):
            os._exit(0)

    def _send_all(self) -> None:
        """Send from a thread of its own, so that a parent who is busy never holds up the load."""
        try:
            while (message := self._outbox.get()) is not None:
                self._channel.send(message)
        except OSError:
            os._exit(0)


def reason_of(error: BaseException) -> str:
    """Return one line that says what went wrong."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
