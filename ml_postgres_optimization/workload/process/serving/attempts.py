"""Do operations, and put aside those that wait for another attempt."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from ml_postgres_optimization.retry import Phase
from ml_postgres_optimization.workload.mix import Mix
from ml_postgres_optimization.workload.process.serving.call import Call, Calls, Ending, ending_of
from ml_postgres_optimization.workload.process.serving.lane import Entry, Lane
from ml_postgres_optimization.workload.process.session import FAILURES, Session
from ml_postgres_optimization.workload.statements import Performer, phase_of

_LOOK_SECONDS = 0.1


class Attempts:
    """Do operations on sessions that others own.

    Parameters
    ----------
    mix : Mix
    calls : Calls or None
        What is repeated; nothing where None.
    stopped : asyncio.Future
        Done as soon as nothing more is to be begun.
    lane_of : callable
        Finds the lane in which an operation is to go on.
    follow : callable
        Takes the time at which an operation was over, so that another may follow it.

    Notes
    -----
    An operation that waits for its next attempt holds no session: another operation is done meanwhile. Then it goes
    before those that have not been begun, in its own arm. While the circuit is open a session waits with its
    operation, since no other one may be sent either.
    """

    def __init__(
        self,
        mix: Mix,
        calls: Calls | None,
        *,
        stopped: asyncio.Future[None],
        lane_of: Callable[[Call], Lane],
        follow: Callable[[float], None],
    ) -> None:
        self._reads = frozenset(index for index, name in enumerate(mix.names) if name in mix.read_only)
        self._calls = calls
        self._stopped = stopped
        self._lane_of = lane_of
        self._follow = follow
        self._aside: dict[Call, tuple[asyncio.TimerHandle, Entry]] = {}
        self.may_repeat = True

    async def make(self, session: Session, lane: Lane, entry: Entry) -> Session | None:
        """Attempt an operation, and return the session to go on with; None where another is to take its place."""
        operation, lag, call = entry
        if self._calls is not None and (call := call or self._calls.begin(operation[1], lane.arm)):
            entry = (operation, lag, call)
            if call.wait_seconds() != 0.0 and not await self._let_through(call, session, lane, entry):
                return session
        due, kind_index, key, other_key, amount = operation
        performer: Performer | None = None
        error: Exception | None = None
        start = time.monotonic()
        epoch = 0 if lane.limit is None else lane.limit.epoch
        if call is not None:
            start = _begun(call, lane, start)
        try:
            performer = session.performers[kind_index] or await session.prepare(kind_index)
            await performer(key, other_key, amount)
        except FAILURES as failed:
            error = failed
        except asyncio.CancelledError as cancelled:
            self._finish(lane, entry, start, ending_of(cancelled, self._phase(kind_index, performer)))
            raise
        end = time.monotonic()
        lane.leave(error, epoch)
        if error is not None:
            return await self._fail(session, lane, entry, start, (error, self._phase(kind_index, performer)))
        lane.buffer.record(kind_index, due, start, end, lag_seconds=lag)
        if call is not None:
            call.succeeded()
        self._follow(end)
        return session

    def end_all(self) -> None:
        """Let what was put aside wait in its lane, whose owner ends it."""
        for call in tuple(self._aside):
            self._take_up(call)

    def end(self, lane: Lane, entry: Entry) -> None:
        """End an operation that was begun and waits, as its last attempt did."""
        call = entry[2]
        assert call is not None  # noqa: S101  (it was begun)
        # where the circuit was open it has not been attempted at all
        self._finish(lane, entry, call.start_seconds or time.monotonic(), call.ending)

    async def _let_through(self, call: Call, session: Session, lane: Lane, entry: Entry) -> bool:
        """Wait as long as the circuit is open, and tell whether the attempt is to be made, and here."""
        while (wait_seconds := call.wait_seconds()) and self.may_repeat and not self._stopped.done():
            # a pause is nothing that could be waited for
            await asyncio.wait((self._stopped,), timeout=min(wait_seconds, _LOOK_SECONDS))
        is_let_through = wait_seconds == 0.0 and self.may_repeat
        if is_let_through and not session.is_closed():
            return True
        call.interrupted()
        if is_let_through:
            # the lanes may have been divided afresh meanwhile
            lane.give_back(entry, self._lane_of(call))
            return False
        lane.vacate()
        self.end(lane, entry)
        self._follow(time.monotonic())
        return False

    async def _fail(
        self, session: Session, lane: Lane, entry: Entry, start: float, failure: tuple[Exception, Phase]
    ) -> Session | None:
        operation, _, call = entry
        session.forget(operation[1])
        seconds = call.failed(*failure) if call is not None else None
        if call is None or seconds is None or not self.may_repeat:
            self._finish(lane, entry, start, ending_of(*failure))
            self._follow(time.monotonic())
            return session
        self._aside[call] = (asyncio.get_running_loop().call_later(seconds, self._take_up, call), entry)
        if not call.ending.needs_session or session.is_closed():
            return session
        await session.close()
        return None

    def _take_up(self, call: Call) -> None:
        timer, entry = self._aside.pop(call)
        timer.cancel()
        self._lane_of(call).put_first(entry)

    def _finish(self, lane: Lane, entry: Entry, start: float, ending: Ending) -> None:
        """Record that an operation failed."""
        (due, kind_index, *_), lag, call = entry
        # an attempt before the last one may have been committed
        is_ambiguous = ending.is_ambiguous or (call is not None and call.ending.is_ambiguous)
        lane.buffer.record(
            *(kind_index, due, start, time.monotonic()),
            lag_seconds=lag,
            sqlstate=ending.sqlstate,
            is_ambiguous=is_ambiguous,
        )

    def _phase(self, kind_index: int, performer: Performer | None) -> Phase:
        """Return how far the last operation of a performer has come; what only reads has nothing to commit."""
        return Phase.IN_TRANSACTION if kind_index in self._reads else phase_of(performer)


def _begun(call: Call, lane: Lane, now_seconds: float) -> float:
    """Take that an attempt begins, and return when the first one did."""
    if call.is_repetition:
        lane.buffer.retry(call.ending.sqlstate)
    return call.begin(now_seconds)
