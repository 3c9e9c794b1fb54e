"""What waits for the sessions of one arm, the sessions that wait for work, and what they have finished."""

from __future__ import annotations

import asyncio
from array import array
from collections import deque
from collections.abc import Mapping

import numpy as np

from ml_postgres_optimization.telemetry import SampleBatch
from ml_postgres_optimization.workload.process.schedule import Operation

Entry = tuple[Operation, float]  # an operation, and how late the schedule noticed it


class SampleBuffer:
    """Finished operations, kept in columns until they are taken; about 0.5 µs for each.

    Parameters
    ----------
    kinds : tuple of str
        Every kind of operation.
    keeps_lag : bool
        Whether operations are due by a clock, so that it means something to be late.
    arm : str
        Whose operations they are, where the sessions are divided.
    """

    def __init__(self, kinds: tuple[str, ...], *, keeps_lag: bool, arm: str = "") -> None:
        self._kinds = kinds
        self._keeps_lag = keeps_lag
        self._arm = arm
        self._clear()

    def record(
        self,
        kind_index: int,
        due_seconds: float,
        start_seconds: float,
        end_seconds: float,
        *,
        lag_seconds: float,
        sqlstate: bytes = b"",
    ) -> None:
        """Keep one operation; times are monotonic, `sqlstate` is empty for success."""
        if sqlstate:
            self._sqlstates[len(self._kind_index)] = sqlstate
        self._kind_index.append(kind_index)
        self._due.append(due_seconds)
        self._start.append(start_seconds)
        self._end.append(end_seconds)
        self._lag.append(lag_seconds)

    def due(self, count: int) -> None:
        """Count operations that came due."""
        self._due_total += count

    def skip(self, count: int) -> None:
        """Count operations that were due and will not be started."""
        self._skipped_total += count

    def take(self) -> SampleBatch:
        """Return what was kept, and start anew."""
        sqlstate = np.zeros(len(self._kind_index), dtype="S5")
        for row, code in self._sqlstates.items():
            sqlstate[row] = code
        batch = SampleBatch(
            kinds=self._kinds,
            kind_index=np.frombuffer(self._kind_index, dtype=np.uint8),
            intended_start_seconds=np.frombuffer(self._due),
            start_seconds=np.frombuffer(self._start),
            end_seconds=np.frombuffer(self._end),
            sqlstate=sqlstate,
            lag_seconds=np.frombuffer(self._lag) if self._keeps_lag else np.empty(0),
            skipped_total=self._skipped_total,
            due_total=self._due_total,
            arm=self._arm,
        )
        self._clear()
        return batch

    def _clear(self) -> None:
        self._kind_index = bytearray()
        self._due = array("d")
        self._start = array("d")
        self._end = array("d")
        self._lag = array("d")
        self._sqlstates: dict[int, bytes] = {}
        self._skipped_total = 0
        self._due_total = 0


class Lane:
    """A queue of operations with sessions of its own; there is one for all, unless the sessions are divided.

    Parameters
    ----------
    settings : mapping of str to str
        SET in its sessions.
    buffer : SampleBuffer
        Receives what they finish.
    queue_limit : int
        Operations that may wait; those beyond are counted as skipped.
    """

    def __init__(self, settings: Mapping[str, str], buffer: SampleBuffer, queue_limit: int) -> None:
        # an object of its own, by which a session sees whether it was arranged for this lane
        self.settings = dict(settings)
        self.buffer = buffer
        self.queue: deque[Entry] = deque()
        self._idle: list[asyncio.Future[Entry | None]] = []
        self._queue_limit = queue_limit

    def take(self, entry: Entry) -> None:
        """Have an operation done as soon as a session is free."""
        if self._idle:
            # the one that became idle last: its backend's caches are the warmest
            self._idle.pop().set_result(entry)
        elif len(self.queue) < self._queue_limit:
            self.queue.append(entry)
        else:
            self.buffer.skip(1)

    def give_back(self, entry: Entry) -> None:
        """Let another session do it: the connection broke while this one had nothing to do."""
        if self._idle:
            self._idle.pop().set_result(entry)
        else:
            self.queue.appendleft(entry)

    async def wait(self) -> Entry | None:
        """Wait for an operation; None where there is something else to look after."""
        waiter: asyncio.Future[Entry | None] = asyncio.get_running_loop().create_future()
        self._idle.append(waiter)
        return await waiter

    def wake(self, most: int) -> int:
        """Wake so many of the sessions that wait, and return how many there were."""
        woken = max(0, min(most, len(self._idle)))
        for _ in range(woken):
            self._idle.pop().set_result(None)
        return woken
