"""Inside a client process: the schedules, the sample columns, the timer, and what failures are called."""

import asyncio
import time

import asyncpg
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_postgres_optimization.workload import SOAK_MIX, OperationKind, OperationMix
from ml_postgres_optimization.workload.arrival import Stream, ZipfKeys
from ml_postgres_optimization.workload.plan import constant
from ml_postgres_optimization.workload.process.messages import Position, Share
from ml_postgres_optimization.workload.process.schedule import ClosedLoop, OpenLoop
from ml_postgres_optimization.workload.process.serving import SampleBuffer
from ml_postgres_optimization.workload.process.session import sqlstate_of
from ml_postgres_optimization.workload.process.timer import PreciseTimer

STREAM = Stream(3, 0, ZipfKeys(100, 0.99))
WRITES = OperationMix({OperationKind.WRITE: 1})
WRITE_INDEX = list(OperationKind).index(OperationKind.WRITE)


def share(rate=None, clients=1, mix=SOAK_MIX):
    return Share(connections=1, clients=clients, rate_per_second=rate, mix=mix)


def half(seconds):
    return 0.5 if seconds < 1.0 else 0.0


def test_the_open_loop_gives_every_operation_once_however_it_is_asked():
    at_once = OpenLoop(STREAM, share(2_000.0), constant, 50.0).due(53.0)
    loop = OpenLoop(STREAM, share(2_000.0), constant, 50.0)
    step_by_step = [operation for now in np.linspace(50.0, 53.0, 4_217) for operation in loop.due(now)]
    assert step_by_step == at_once
    assert at_once == sorted(at_once)
    assert 5_500 < len(at_once) < 6_500


@settings(max_examples=50)
@given(stopped_after=st.floats(0.0, 3.0), rate=st.sampled_from([3.0, 200.0, 2_000.0]))
def test_the_open_loop_goes_on_where_it_was_stopped(stopped_after, rate):
    whole = OpenLoop(STREAM, share(rate), constant, 10.0).due(13.5)
    first = OpenLoop(STREAM, share(rate), constant, 10.0)
    before = first.due(10.0 + stopped_after)
    after = OpenLoop(STREAM, share(rate), constant, 10.0, first.position).due(13.5)
    assert before + after == whole


def test_the_open_loop_asks_to_be_woken_when_something_is_due():
    loop = OpenLoop(STREAM, share(20.0), constant, 10.0)
    now, seen = 10.0, []
    for _ in range(500):
        seen += loop.due(now)
        assert loop.next_due_seconds > now
        now = loop.next_due_seconds
    assert [operation[0] for operation in seen] == [
        operation[0] for operation in OpenLoop(STREAM, share(20.0), constant, 10.0).due(now)[: len(seen)]
    ]


def test_the_rate_follows_its_shape():
    loop = OpenLoop(STREAM, share(2_000.0), half, 10.0)
    assert 850 < len(loop.due(11.0)) < 1_150
    assert not loop.due(15.0)


def test_another_rate_takes_effect_within_two_intervals():
    loop = OpenLoop(STREAM, share(0.0), constant, 10.0)
    assert not loop.due(10.5)
    loop.change(share(1_000.0))
    assert 550 < len(loop.due(11.3)) < 850


def test_the_closed_loop_keeps_its_clients_in_flight():
    loop = ClosedLoop(STREAM, share(clients=3))
    first = loop.due(1.0)
    assert len(first) == 3
    assert {operation[0] for operation in first} == {1.0}
    assert loop.due(1.1) == []
    assert loop.after(2.0)[0] == 2.0
    loop.change(share(clients=1))
    assert loop.after(2.1) is None
    assert loop.after(2.2) is None
    assert loop.after(2.3)[0] == 2.3
    loop.change(share(clients=4))
    assert len(loop.due(3.0)) == 3


def test_the_closed_loop_changes_its_mix_at_once_for_those_who_wait_too():
    loop = ClosedLoop(STREAM, share(clients=50))
    waiting = loop.due(1.0)
    loop.change(share(clients=50, mix=WRITES))
    assert {loop.renewed(operation)[1] for operation in waiting} == {WRITE_INDEX}
    assert loop.renewed(waiting[0])[0] == 1.0


def test_samples_come_back_in_columns():
    buffer = SampleBuffer(SOAK_MIX.names, keeps_lag=True)
    buffer.record(0, 1.0, 1.5, 2.0, lag_seconds=0.1)
    buffer.record(2, 1.1, 1.2, 3.0, lag_seconds=0.2, sqlstate=b"40P01")
    buffer.skip(3)
    batch = buffer.take()
    samples = list(batch.samples())
    assert [sample.kind for sample in samples] == ["read", "update"]
    assert [sample.sqlstate for sample in samples] == [None, "40P01"]
    assert [sample.response_seconds for sample in samples] == pytest.approx([1.0, 1.9])
    assert batch.lag_seconds.tolist() == [0.1, 0.2]
    assert batch.skipped_total == 3
    assert len(buffer.take()) == 0
    assert buffer.take().skipped_total == 0


def test_without_a_clock_there_is_no_lag():
    buffer = SampleBuffer(SOAK_MIX.names, keeps_lag=False)
    buffer.record(0, 1.0, 1.0, 2.0, lag_seconds=0.0)
    assert buffer.take().lag_seconds.size == 0


def test_the_timer_calls_back_on_time_never_early_and_only_for_the_last_order():
    async def wake_up() -> tuple[float, list[float]]:
        loop, calls = asyncio.get_running_loop(), []
        woken = loop.create_future()

        def ring() -> None:
            calls.append(time.monotonic())
            woken.set_result(None)

        timer = PreciseTimer(loop, ring)
        timer.arm(time.monotonic() + 30.0)
        due = time.monotonic() + 0.02
        timer.arm(due)
        await woken
        timer.close()
        timer.close()
        return due, calls

    due, calls = asyncio.run(wake_up())
    assert len(calls) == 1
    assert due <= calls[0] < due + 1.0


def test_the_timer_rings_at_once_for_what_is_over():
    async def wake_up() -> None:
        woken = asyncio.get_running_loop().create_future()
        timer = PreciseTimer(asyncio.get_running_loop(), lambda: woken.set_result(None))
        timer.arm(time.monotonic() - 5.0)
        await asyncio.wait_for(woken, 5.0)
        timer.close()

    asyncio.run(wake_up())


def raised(error, cause):
    error.__cause__ = cause
    return error


ADMIN_SHUTDOWN = asyncpg.AdminShutdownError("terminating connection due to administrator command")
GONE = asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
DEADLOCK = asyncpg.DeadlockDetectedError("deadlock detected")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (DEADLOCK, b"40P01"),
        (GONE, b"08003"),
        (raised(asyncpg.ConnectionDoesNotExistError("closed"), cause=ADMIN_SHUTDOWN), b"57P01"),
        (asyncpg.InterfaceError("connection is closed"), b"08003"),
        (asyncpg.InterfaceError("the prepared statement is closed"), b"26000"),
        (ConnectionResetError(), b"08003"),
    ],
    ids=str,
)
def test_the_servers_own_word_names_a_failure(error, expected):
    assert sqlstate_of(error) == expected


def test_a_refused_connection_has_a_name_too():
    assert sqlstate_of(ConnectionRefusedError(), connecting=True) == b"08001"
    assert sqlstate_of(TimeoutError(), connecting=True) == b"08001"
    assert sqlstate_of(asyncpg.TooManyConnectionsError("sorry"), connecting=True) == b"53300"


def test_a_position_is_the_beginning_by_default():
    assert OpenLoop(STREAM, share(100.0), constant, 10.0).position == Position()
