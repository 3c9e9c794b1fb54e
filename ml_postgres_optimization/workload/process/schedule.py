"""Which operation comes next, and when: by the clock (open loop), or after the one before (closed loop)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from ml_postgres_optimization.workload.arrival import INTERVAL_SECONDS, Stream
from ml_postgres_optimization.workload.plan import RateShape
from ml_postgres_optimization.workload.process.messages import Position, Share

# Due time (monotonic seconds), kind index, key, other key, amount. A plain tuple: one is made for each operation.
Operation = tuple[float, int, int, int, int]
_BLOCK_SIZE = 512
_NEVER = float("inf")
_FROM_THE_START = Position()


class Schedule(Protocol):
    """Say which operations are due."""

    @property
    def position(self) -> Position:
        """How far it has come."""

    @property
    def next_due_seconds(self) -> float:
        """When to ask again, in monotonic seconds."""

    def due(self, now_seconds: float) -> list[Operation]:
        """Return the operations that came due since the last call."""

    def after(self, end_seconds: float) -> Operation | None:
        """Return the operation that the end of another one brings, if any."""

    def change(self, share: Share) -> None:
        """Go on with another rate, mix or number of clients."""

    def renewed(self, waiting: Operation) -> Operation:
        """Return what an operation that waits becomes after a change."""


class OpenLoop:
    """Operations due by a Poisson process.

    Parameters
    ----------
    stream : Stream
    share : Share
        With a rate.
    shape : callable
        Seconds since the start → factor on the rate.
    start_seconds : float
        Monotonic time of the schedule's beginning.
    position : Position
        Where to go on.

    Notes
    -----
    A change takes effect with the next interval that is drawn, at most 0.2 s later; what is due stays as it is.
    """

    def __init__(
        self,
        stream: Stream,
        share: Share,
        shape: RateShape,
        start_seconds: float,
        position: Position = _FROM_THE_START,
    ) -> None:
        self._stream = stream
        self._share = share
        self._shape = shape
        self._start_seconds = start_seconds
        self._next_interval = position.interval
        self._pending: list[Operation] = []  # the first one last, so that taking it is cheap
        self._drawn = 0
        if position.operation:
            self._draw()
            del self._pending[max(0, self._drawn - position.operation) :]

    @property
    def position(self) -> Position:
        """How far it has come."""
        if self._pending:
            return Position(self._next_interval - 1, self._drawn - len(self._pending))
        return Position(self._next_interval)

    @property
    def next_due_seconds(self) -> float:
        """When the next operation is due, or the next interval can be drawn."""
        if self._pending:
            return self._pending[-1][0]
        return self._begin_of(self._next_interval - 1)

    def due(self, now_seconds: float) -> list[Operation]:
        """Return the operations that came due since the last call."""
        due: list[Operation] = []
        while True:
            while self._pending and self._pending[-1][0] <= now_seconds:
                due.append(self._pending.pop())
            if self._pending or self._begin_of(self._next_interval - 1) > now_seconds:
                return due
            self._draw()

    def after(self, end_seconds: float) -> None:
        """Bring nothing: no operation waits for another."""

    def change(self, share: Share) -> None:
        """Go on with another rate or mix."""
        self._share = share

    def renewed(self, waiting: Operation) -> Operation:
        """Return the operation as it is: it is due."""
        return waiting

    def _begin_of(self, interval: int) -> float:
        return self._start_seconds + interval * INTERVAL_SECONDS

    def _draw(self) -> None:
        number = self._next_interval
        rate = (self._share.rate_per_second or 0.0) * self._shape((number + 0.5) * INTERVAL_SECONDS)
        due_seconds, draws = self._stream.interval(number, rate, self._share.mix)
        times = (self._start_seconds + due_seconds).tolist()
        self._pending = [(at, *row) for at, row in zip(times, draws.rows(), strict=True)]
        self._pending.reverse()
        self._drawn = len(self._pending)
        self._next_interval = number + 1


class ClosedLoop:
    """Operations of a fixed number of users, each of whom asks again as soon as the answer is there.

    Parameters
    ----------
    stream : Stream
    share : Share
        With the number of clients.
    """

    def __init__(self, stream: Stream, share: Share) -> None:
        self._stream = stream
        self._share = share
        self._in_flight = 0
        self._next_block = 0
        self._rows = self._draw()

    @property
    def position(self) -> Position:
        """Nothing to go on from: without a clock nothing is ever late."""
        return Position()

    @property
    def next_due_seconds(self) -> float:
        """No time: only the end of an operation brings the next."""
        return _NEVER

    def due(self, now_seconds: float) -> list[Operation]:
        """Return one operation for each client who has none in flight."""
        missing = range(self._in_flight, self._share.clients)
        self._in_flight = max(self._in_flight, self._share.clients)
        return [(now_seconds, *next(self._rows)) for _ in missing]

    def after(self, end_seconds: float) -> Operation | None:
        """Return the next operation of the client whose last one ended; None where there are too many clients."""
        if self._in_flight > self._share.clients:
            self._in_flight -= 1
            return None
        return (end_seconds, *next(self._rows))

    def change(self, share: Share) -> None:
        """Go on with another mix or number of clients."""
        self._share = share
        self._rows = self._draw()

    def renewed(self, waiting: Operation) -> Operation:
        """Return an operation of the mix that is now in force."""
        return (waiting[0], *next(self._rows))

    def _draw(self) -> Iterator[tuple[int, int, int, int]]:
        while True:
            mix = self._share.mix
            self._next_block += 1
            yield from self._stream.block(self._next_block - 1, _BLOCK_SIZE, mix).rows()
