"""No more are let in than the limit allows, the queue ends, and no place is lost whatever happens to who waits."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import asyncpg
import psycopg
import pytest
from psycopg import errors

from ml_postgres_optimization.errors import NotAdmitted, UsageError
from ml_postgres_optimization.retry import (
    CircuitBreaker,
    ConcurrencyLimit,
    ConcurrencyLimiter,
    RetryingCaller,
    RetryPolicy,
    deadline,
    pgbouncer_lines,
)


class Fixed:
    """A limit that does not move, and notes what it is told."""

    def __init__(self, limit):
        self.limit = self.settled = limit
        self.epoch = 0
        self.taken = []

    def take(self, concurrency, outcome, *, epoch, is_awaited):
        self.taken.append((concurrency, outcome.value))


def limiter_of(count, **more):
    return ConcurrencyLimiter(Fixed(count), **more)


def test_threads_never_exceed_it_and_all_get_their_turn():
    limiter, most, state = limiter_of(3), [0], threading.Lock()

    def work(_number):
        with limiter.acquire():
            with state:
                most[0] = max(most[0], limiter.at_work)
            return True

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(work, range(500)))
    assert 1 <= most[0] <= 3
    assert (limiter.at_work, limiter.waiting) == (0, 0)


def test_tasks_and_threads_share_it():
    limiter = limiter_of(2)

    async def work():
        with await limiter.acquire_async():
            assert limiter.at_work <= 2
            await asyncio.sleep(0)

    async def tasks():
        await asyncio.gather(*(work() for _ in range(200)))

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(asyncio.run, tasks()) for _ in range(2)]:
            done.result()
    assert (limiter.at_work, limiter.waiting) == (0, 0)


def test_a_full_queue_sends_away_at_once_and_says_how_it_stands():
    limiter = limiter_of(1, queue=0)
    with limiter.acquire(), pytest.raises(NotAdmitted, match="1 calls are at work and 0 wait"):
        limiter.acquire()


def test_a_wait_ends_by_its_own_bound_and_by_the_callers_deadline():
    for limiter, seconds in ((limiter_of(1, wait_seconds=0.0), 60.0), (limiter_of(1, wait_seconds=60.0), 0.01)):
        with limiter.acquire(), deadline(seconds), pytest.raises(NotAdmitted, match="in the queue were not enough"):
            limiter.acquire()
        assert (limiter.at_work, limiter.waiting) == (0, 0)


def test_first_come_first_served():
    limiter, order = limiter_of(1), []

    async def work(number):
        with await limiter.acquire_async():
            order.append(number)

    async def scenario():
        with limiter.acquire():
            tasks = [asyncio.create_task(work(number)) for number in range(20)]
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)

    asyncio.run(scenario())
    assert order == list(range(20))


@pytest.mark.parametrize("lets_in_first", [False, True])
def test_a_cancelled_task_leaves_no_gap(lets_in_first):
    """Also where it was let in, and cancelled before it knew."""

    async def scenario():
        slot = limiter.acquire()
        task = asyncio.create_task(limiter.acquire_async())
        await asyncio.sleep(0)
        if lets_in_first:
            slot.__exit__(None, None, None)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        if not lets_in_first:
            slot.__exit__(None, None, None)

    limiter = limiter_of(1)
    asyncio.run(scenario())
    assert (limiter.at_work, limiter.waiting) == (0, 0)
    with limiter.acquire():
        pass


def test_a_loop_that_was_closed_over_its_tasks_holds_nobody_up():
    limiter, loop = limiter_of(1), asyncio.new_event_loop()
    slot = limiter.acquire()
    waiting = limiter.acquire_async()
    task = loop.create_task(waiting)
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    slot.__exit__(None, None, None)
    assert (limiter.at_work, limiter.waiting) == (0, 0)
    task._log_destroy_pending = False
    waiting.close()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (None, "success"),
        (errors.SerializationFailure("x"), "in vain"),
        (errors.DeadlockDetected("x"), "in vain"),
        (errors.LockNotAvailable("x"), "in vain"),
        (errors.TooManyConnections("x"), "shortage"),
        (errors.OutOfMemory("x"), "shortage"),
        (psycopg.OperationalError("connection failed: FATAL:  sorry, too many clients already"), "shortage"),
        (errors.ProtocolViolation("query_wait_timeout"), "shortage"),
        (errors.DiskFull("x"), None),
        (errors.UniqueViolation("x"), "success"),
        (errors.AdminShutdown("x"), None),
        (ValueError("x"), None),
        (KeyboardInterrupt(), None),
        (asyncpg.InterfaceError("cannot perform operation: another operation is in progress"), None),
    ],
)
def test_what_an_end_says_of_how_many_the_server_bears(error, said):
    limiter = limiter_of(4)
    if error is None:
        with limiter.acquire():
            pass
    else:
        with pytest.raises(type(error)), limiter.acquire():
            raise error
    assert [outcome for _, outcome in limiter.limit.taken] == ([said] if said else [])


def test_each_attempt_takes_a_slot_and_gives_it_back():
    limiter, calls = limiter_of(1), []
    caller = RetryingCaller(RetryPolicy(is_idempotent=True), limiter=limiter, sleep=lambda _seconds: None)

    def work():
        calls.append(limiter.at_work)
        if len(calls) < 3:
            raise errors.SerializationFailure("x")
        return "done"

    assert caller.call(work) == "done"
    assert calls == [1, 1, 1]
    attempts = caller.attempts()
    next(attempts)
    assert limiter.at_work == 1
    attempts.close()
    assert limiter.at_work == 0


def test_tasks_take_slots_too():
    limiter = limiter_of(1)
    caller = RetryingCaller(limiter=limiter)

    async def work():
        assert limiter.at_work == 1
        await asyncio.sleep(0)

    async def scenario():
        await asyncio.gather(*(caller.call_async(work) for _ in range(10)))

    asyncio.run(scenario())
    assert limiter.at_work == 0


def test_the_time_of_a_call_bounds_its_wait_in_the_queue():
    limiter = limiter_of(1, wait_seconds=3600.0)
    caller = RetryingCaller(RetryPolicy(total_seconds=0.01), limiter=limiter)
    with limiter.acquire(), pytest.raises(NotAdmitted):
        caller.call(max, 1, 2)


def test_a_limit_that_cannot_move_holds():
    now = [0.0]
    limit = ConcurrencyLimit(5, least=5, most=5, monotonic_seconds=lambda: now[0])
    for number in range(5000):
        now[0] += 0.001 if number // 200 % 2 else 0.002
        limit.take(5)
    assert (limit.settled, limit.limit) == (5, 5)


def test_who_is_sent_away_is_no_probe():
    breaker = CircuitBreaker(failures=1, base_seconds=1e-6, cap_seconds=1e-6)
    breaker.failed()
    limiter = limiter_of(1, queue=0)
    caller = RetryingCaller(limiter=limiter, breaker=breaker)
    with limiter.acquire(), pytest.raises(NotAdmitted):
        caller.call(max, 1, 2)
    assert caller.call(max, 1, 2) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: ConcurrencyLimit(0),
        lambda: ConcurrencyLimit(5, most=4),
        lambda: ConcurrencyLimit(5, least=0),
        lambda: ConcurrencyLimiter(queue=-1),
        lambda: ConcurrencyLimiter(wait_seconds=float("nan")),
        lambda: ConcurrencyLimiter(wait_seconds=float("inf")),
        lambda: pgbouncer_lines(ConcurrencyLimit(), pools=0),
    ],
)
def test_what_is_no_limit_is_refused(wrong):
    with pytest.raises(UsageError):
        wrong()


def test_a_ceiling_that_is_lifted_lets_in_who_waits():
    limiter = ConcurrencyLimiter(ConcurrencyLimit(4))
    limiter.hold_below(1)
    let_in = threading.Event()

    def come():
        with limiter.acquire():
            let_in.set()

    with limiter.acquire():
        thread = threading.Thread(target=come)
        thread.start()
        while not limiter.waiting:
            pass
        assert not let_in.is_set()
        limiter.hold_below(None)
        assert let_in.wait(10)
        thread.join()
