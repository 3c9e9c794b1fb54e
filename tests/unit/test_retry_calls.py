"""A call is tried again while that makes sense: waits, bounds, budget, circuit, hooks, the three doors."""

import asyncio
import threading
import time
from dataclasses import replace
from functools import partial

import psycopg
import pytest
import structlog
from psycopg import errors

from ml_postgres_optimization.errors import CircuitOpen, CommitUnknown, DeadlinePassed, UsageError
from ml_postgres_optimization.retry import (
    Circuit,
    CircuitBreaker,
    ErrorClass,
    Pause,
    Permission,
    Phase,
    RetryBudget,
    RetryCounters,
    RetryingCaller,
    RetryPolicy,
    StructlogHook,
    deadline,
    retry,
    retry_testing,
)
from ml_postgres_optimization.retry.calling import current_attempt
from ml_postgres_optimization.telemetry.clock import VirtualClock

CONFLICT = partial(errors.SerializationFailure, "could not serialize access")
LOST = partial(psycopg.OperationalError, "server closed the connection unexpectedly")
REFUSED = partial(psycopg.OperationalError, "connection failed: Connection refused")


class Failing:
    """Fails as told, one by one, then returns "done"."""

    def __init__(self, *failures):
        self._failures = list(failures)
        self.calls = 0

    def __call__(self):
        self.calls += 1
        if self._failures:
            raise self._failures.pop(0)()
        return "done"

    async def later(self):
        return self()


@pytest.fixture
def clock():
    return VirtualClock()


@pytest.fixture
def caller_of(clock):
    def make(policy=None, *, is_idempotent=True, **more):
        """What is called here has no transaction of ours, so that nobody sees how far it has come."""
        made = {"sleep": clock.sleep, "monotonic_seconds": clock.monotonic_seconds, **more}
        return RetryingCaller(replace(policy or RetryPolicy(), is_idempotent=is_idempotent), **made)

    return make


def test_a_conflict_is_repeated_until_it_is_done(caller_of):
    work = Failing(CONFLICT, CONFLICT)
    assert caller_of().call(work) == "done"
    assert work.calls == 3


def test_arguments_and_results_go_through(caller_of):
    assert caller_of().call(lambda a, *, b: (a, b), 1, b=2) == (1, 2)


def test_what_is_no_failure_of_the_database_goes_through_at_once(caller_of):
    work = Failing(partial(ValueError, "wrong"))
    with pytest.raises(ValueError, match="wrong"):
        caller_of().call(work)
    assert work.calls == 1


def test_attempts_are_bounded_and_the_drivers_own_error_says_so(caller_of):
    work = Failing(*[CONFLICT] * 9)
    with pytest.raises(errors.SerializationFailure) as raised:
        caller_of(RetryPolicy(attempts=3)).call(work)
    assert work.calls == 3
    assert "this was the last attempt" in raised.value.__notes__[0]


def test_time_is_bounded_and_no_wait_is_begun_in_vain(caller_of, clock):
    work = Failing(*[REFUSED] * 999)
    policy = RetryPolicy(attempts=999, total_seconds=60.0, reconnect=Pause(5.0, 20.0))
    breaker = CircuitBreaker(failures=999)
    with pytest.raises(psycopg.OperationalError) as raised:
        caller_of(policy, breaker=breaker, budget=RetryBudget(reserve=999)).call(work)
    assert clock.monotonic_seconds() < 60.0
    assert "the time is over" in raised.value.__notes__[0]


def test_the_callers_deadline_comes_first(caller_of, clock):
    work = Failing(*[REFUSED] * 99)
    policy = RetryPolicy(attempts=99, total_seconds=1e6, reconnect=Pause(100.0, 1000.0))
    with deadline(50.0), pytest.raises(psycopg.OperationalError):
        caller_of(policy, breaker=CircuitBreaker(failures=999)).call(work)
    assert clock.monotonic_seconds() < 50.0


def test_the_sooner_of_two_deadlines_counts(caller_of):
    with deadline(-1.0), deadline(100.0), pytest.raises(DeadlinePassed):
        caller_of().call(Failing())


def test_a_deadline_in_the_past_is_said_and_nothing_is_called(caller_of):
    work = Failing()
    with deadline(-2.5), pytest.raises(DeadlinePassed, match=r"its deadline passed 2\.5\d\d s ago"):
        caller_of().call(work)
    assert work.calls == 0
    with pytest.raises(UsageError), deadline(float("nan")):
        pass


def test_waits_grow_with_full_jitter_up_to_the_cap(caller_of, clock):
    waits = []
    policy = RetryPolicy(attempts=200, total_seconds=1e6, conflict=Pause(1.0, 8.0))
    caller = caller_of(policy, budget=RetryBudget(reserve=1e6), sleep=waits.append)
    caller.call(Failing(*[CONFLICT] * 199))
    assert max(waits[:1]) <= 1.0
    assert max(waits[1:2]) <= 2.0
    at_cap = waits[3:]
    assert max(at_cap) <= 8.0
    assert min(at_cap) < 1.0  # no fixed part: they do not come back together
    assert 3.0 < sum(at_cap) / len(at_cap) < 5.0


def test_a_failure_that_is_repeated_once_is_not_repeated_twice(caller_of):
    out_of_memory = partial(errors.OutOfMemory, "out of memory")
    assert caller_of().call(Failing(out_of_memory)) == "done"
    with pytest.raises(errors.OutOfMemory):
        caller_of().call(Failing(out_of_memory, out_of_memory))


def test_some_failures_need_a_permission(caller_of):
    taken = partial(errors.UniqueViolation, "duplicate key value")
    with pytest.raises(errors.UniqueViolation) as raised:
        caller_of().call(Failing(taken))
    assert "keys_from_reads" in raised.value.__notes__[0]
    permitted = RetryPolicy(permissions=frozenset({Permission.KEYS_FROM_READS}))
    assert caller_of(permitted).call(Failing(taken)) == "done"


def test_a_lost_connection_is_not_retried_where_nobody_knows_what_had_been_sent(caller_of):
    work = Failing(LOST)
    with pytest.raises(CommitUnknown, match="may have been committed") as raised:
        caller_of(is_idempotent=False).call(work)
    assert work.calls == 1
    assert "is_idempotent" in raised.value.next_step
    assert isinstance(raised.value.__cause__, psycopg.OperationalError)


def test_what_may_be_done_twice_is_retried_after_it(caller_of):
    assert caller_of().call(Failing(LOST, LOST)) == "done"
    unknown = partial(CommitUnknown, "The reply to COMMIT was lost.", "Look.")
    assert caller_of().call(Failing(unknown)) == "done"
    with pytest.raises(CommitUnknown):
        caller_of(is_idempotent=False).call(Failing(unknown))


def test_a_conflict_outside_of_a_transaction_of_ours_may_come_after_a_commit(caller_of):
    with pytest.raises(errors.SerializationFailure) as raised:
        caller_of(is_idempotent=False).call(Failing(CONFLICT))
    assert "transaction(connection)" in raised.value.__notes__[0]


def test_a_connection_that_was_never_had_is_tried_again_all_the_same(caller_of):
    assert caller_of(is_idempotent=False).call(Failing(REFUSED, REFUSED)) == "done"


def test_how_far_a_transaction_had_come_says_nothing_of_what_fails_after_it(caller_of):
    def rolled_back_and_then_something_else():
        calls.append(1)
        current_attempt().leave(CONFLICT(), Phase.IN_TRANSACTION)  # which the caller has caught
        raise LOST()

    calls = []
    with pytest.raises(CommitUnknown):
        caller_of(is_idempotent=False).call(rolled_back_and_then_something_else)
    assert len(calls) == 1


def test_an_error_of_the_callers_own_keeps_the_phase_of_what_it_comes_from(caller_of):
    def wrapped():
        calls.append(1)
        if len(calls) == 1:
            lost = LOST()
            current_attempt().leave(lost, Phase.IN_TRANSACTION)
            raise ValueError("the transfer failed") from lost
        return "done"

    calls = []
    assert caller_of(is_idempotent=False).call(wrapped) == "done"


def test_what_was_committed_in_part_is_not_done_again(caller_of):
    calls = []

    def two_transactions():
        calls.append(1)
        current_attempt().has_committed = True
        raise CONFLICT()

    with pytest.raises(errors.SerializationFailure) as raised:
        caller_of(is_idempotent=False).call(two_transactions)
    assert len(calls) == 1
    assert "would be done twice" in raised.value.__notes__[0]


def test_the_budget_bounds_what_all_callers_add(caller_of):
    budget = RetryBudget(ratio=0.1, reserve=5)
    caller = caller_of(RetryPolicy(attempts=2, total_seconds=1e9), budget=budget)
    attempts, calls = 0, 1000
    for _ in range(calls):
        work = Failing(CONFLICT, CONFLICT)
        with pytest.raises(errors.SerializationFailure):
            caller.call(work)
        attempts += work.calls
    assert attempts <= 1.1 * calls + 5


def test_the_circuit_opens_leaves_the_server_alone_and_lets_one_probe_through(caller_of, clock):
    breaker = CircuitBreaker(
        failures=3, base_seconds=10.0, cap_seconds=10.0, monotonic_seconds=clock.monotonic_seconds
    )
    caller = caller_of(RetryPolicy(attempts=1, total_seconds=1.0), breaker=breaker)
    for _ in range(3):
        with pytest.raises(psycopg.OperationalError):
            caller.call(Failing(REFUSED))
    assert breaker.state is Circuit.OPEN
    work = Failing()
    with pytest.raises(CircuitOpen, match="left alone"):
        caller.call(work)
    assert work.calls == 0
    clock.sleep(10.0)
    assert breaker.ask() == 0.0
    assert breaker.ask() > 0.0  # the probe is under way
    breaker.failed()
    assert breaker.state is Circuit.OPEN
    clock.sleep(10.0)
    assert caller.call(work) == "done"
    assert breaker.state is Circuit.CLOSED


def test_who_has_time_waits_for_the_circuit_without_spending_attempts(caller_of, clock):
    breaker = CircuitBreaker(
        failures=1, base_seconds=10.0, cap_seconds=10.0, monotonic_seconds=clock.monotonic_seconds
    )
    breaker.failed()
    work = Failing()
    assert caller_of(RetryPolicy(attempts=1), breaker=breaker).call(work) == "done"
    assert (work.calls, 5.0 <= clock.monotonic_seconds() <= 10.0) == (1, True)


def test_a_server_that_answers_with_errors_is_there(caller_of):
    breaker = CircuitBreaker(failures=1)
    caller = caller_of(RetryPolicy(attempts=1), breaker=breaker)
    for failure in (CONFLICT, partial(errors.UndefinedTable, "no such table"), partial(ValueError, "not even asked")):
        with pytest.raises((psycopg.Error, ValueError)):
            caller.call(Failing(failure))
    assert breaker.state is Circuit.CLOSED


def test_those_that_wait_while_a_probe_is_under_way_ask_again_soon(clock):
    breaker = CircuitBreaker(failures=1, base_seconds=1.0, cap_seconds=1.0, monotonic_seconds=clock.monotonic_seconds)
    breaker.failed()
    clock.sleep(1.0)
    assert breaker.ask("the probe") == 0.0
    assert 0.0 < breaker.ask("another") <= 0.1
    breaker.gave_up("another, which had begun before")
    assert breaker.state is Circuit.PROBING
    breaker.succeeded()
    assert breaker.ask("another") == 0.0


@pytest.mark.parametrize("is_async", [False, True])
def test_a_call_from_before_the_outage_does_not_end_the_probe_of_another(caller_of, clock, is_async):
    breaker = CircuitBreaker(failures=1, base_seconds=1.0, cap_seconds=1.0, monotonic_seconds=clock.monotonic_seconds)
    caller = caller_of(RetryPolicy(attempts=1), breaker=breaker)

    def slow():
        breaker.failed("another")
        clock.sleep(1.0)
        assert breaker.ask("the probe") == 0.0
        raise LOST()

    async def slow_async():
        slow()

    with pytest.raises(psycopg.OperationalError):
        asyncio.run(caller.call_async(slow_async)) if is_async else caller.call(slow)
    assert breaker.state is Circuit.PROBING
    breaker.failed("the probe")
    assert breaker.state is Circuit.OPEN


def test_thousands_that_wait_for_a_probe_do_not_keep_a_core_busy_with_asking(clock):
    breaker = CircuitBreaker(failures=1, probe_seconds=30.0, monotonic_seconds=clock.monotonic_seconds)
    breaker.failed()
    clock.sleep(10.0)
    assert breaker.ask() == 0.0
    waits = [breaker.ask() for _ in range(5_000)]
    assert waits[0] == 0.1, "few are told soon"
    assert max(waits) == waits[-1] == 1.0
    assert sum(1.0 / wait for wait in waits) < 8_000, "in the first second; five thousand in those that follow"
    breaker.succeeded()
    assert breaker.ask() == 0.0


def test_what_failed_first_is_not_hidden_by_a_circuit_that_opened_meanwhile(caller_of, clock):
    breaker = CircuitBreaker(
        failures=1, base_seconds=100.0, cap_seconds=100.0, monotonic_seconds=clock.monotonic_seconds
    )
    with pytest.raises(CircuitOpen, match="was not called again") as raised:
        caller_of(breaker=breaker).call(Failing(REFUSED))
    assert isinstance(raised.value.__cause__, psycopg.OperationalError)


def test_a_plain_function_may_be_awaited_too(caller_of):
    assert asyncio.run(caller_of().call_async(Failing(CONFLICT))) == "done"


def test_a_probe_that_is_interrupted_leaves_the_way_to_another(caller_of, clock):
    breaker = CircuitBreaker(failures=1, base_seconds=1.0, cap_seconds=1.0, monotonic_seconds=clock.monotonic_seconds)
    breaker.failed()
    with pytest.raises(KeyboardInterrupt):
        caller_of(breaker=breaker).call(Failing(KeyboardInterrupt))
    assert breaker.ask() == 0.0


def test_a_probe_that_says_nothing_is_taken_for_lost(clock):
    breaker = CircuitBreaker(
        failures=1,
        base_seconds=1.0,
        cap_seconds=1.0,
        probe_seconds=30.0,
        monotonic_seconds=clock.monotonic_seconds,
    )
    breaker.failed()
    clock.sleep(1.0)
    assert breaker.ask() == 0.0
    clock.sleep(29.0)
    assert breaker.ask() > 0.0
    clock.sleep(2.0)
    assert breaker.ask() == 0.0


def test_hooks_are_told_of_every_failure_and_what_comes_of_it(caller_of):
    seen, counters = [], RetryCounters()
    caller = caller_of(RetryPolicy(attempts=2), hooks=(seen.append, counters))
    with pytest.raises(errors.DeadlockDetected):
        caller.call(Failing(CONFLICT, partial(errors.DeadlockDetected, "deadlock")))
    first, second = seen
    assert (first.attempt, first.sqlstate, first.error_class, first.is_retried) == (
        *(1, "40001"),
        *(ErrorClass.SERIALIZATION, True),
    )
    assert (second.attempt, second.is_retried, second.wait_seconds) == (2, False, 0.0)
    assert (counters.retried.total(), counters.given_up.total()) == (1, 1)
    assert next(iter(counters.given_up))[1] is ErrorClass.DEADLOCK


def test_a_hook_that_fails_ends_nothing(caller_of):
    def broken(_details):
        raise RuntimeError("the hook is broken")

    assert caller_of(hooks=(broken,)).call(Failing(CONFLICT)) == "done"


def test_structlog_gets_a_line_without_what_the_statement_was_about(caller_of):
    with structlog.testing.capture_logs() as lines:
        caller_of(hooks=(StructlogHook(structlog.get_logger()),)).call(
            Failing(partial(errors.SerializationFailure, "Key (iban)=(DE00) is secret"))
        )
    assert lines[0]["sqlstate"] == "40001"
    assert "DE00" not in str(lines)


def test_the_decorator_keeps_name_and_signature():
    @retry(policy=RetryPolicy(attempts=2, conflict=Pause(0.0, 0.0), is_idempotent=True))
    def transfer(amount: int) -> int:
        """Transfer."""
        failures.append(1)
        if len(failures) == 1:
            raise CONFLICT()
        return amount

    failures: list[int] = []
    assert (transfer(7), len(failures), transfer.__name__, transfer.__doc__) == (7, 2, "transfer", "Transfer.")


def test_the_loop_goes_on_until_it_is_done(caller_of):
    work, numbers = Failing(CONFLICT, CONFLICT), []
    for attempt in caller_of().attempts():
        with attempt as entered:
            numbers.append(entered.number)
            result = work()
    assert (result, numbers) == ("done", [1, 2, 3])


def test_a_loop_that_enters_no_attempt_is_told(caller_of):
    with pytest.raises(UsageError, match="not entered"):
        for _attempt in caller_of().attempts():
            pass


def test_an_attempt_is_entered_once(caller_of):
    attempt = next(caller_of().attempts())
    with attempt:
        pass
    with pytest.raises(UsageError, match="twice"), attempt:
        pass


def test_coroutines_are_retried_and_wait_without_blocking(caller_of):
    work = Failing(CONFLICT, CONFLICT)
    assert asyncio.run(caller_of().call_async(work.later)) == "done"

    @caller_of(RetryPolicy(conflict=Pause(0.0, 0.0))).retry
    async def later():
        return await other.later()

    other = Failing(CONFLICT)
    assert asyncio.run(later()) == "done"
    assert other.calls == 2


def test_attempts_of_a_task(caller_of):
    async def loop():
        async for attempt in caller_of().attempts_async():
            with attempt:
                return await work.later()
        return None

    work = Failing(CONFLICT)
    assert asyncio.run(loop()) == "done"


def test_a_cancelled_task_ends_at_once_in_a_wait_and_in_an_attempt(caller_of):
    async def cancelled_in(work, policy):
        task = asyncio.create_task(caller_of(policy).call_async(work))
        await asyncio.sleep(0.05)
        task.cancel()
        began = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic() - began

    async def hangs():
        await asyncio.sleep(60)

    long = RetryPolicy(total_seconds=1e6, conflict=Pause(3600.0, 3600.0))
    assert asyncio.run(cancelled_in(Failing(CONFLICT).later, long)) < 10.0
    assert asyncio.run(cancelled_in(hangs, None)) < 10.0


def test_ctrl_c_in_a_wait_ends_at_once(caller_of):
    def interrupted(_seconds):
        raise KeyboardInterrupt

    work = Failing(*[CONFLICT] * 9)
    with pytest.raises(KeyboardInterrupt):
        caller_of(sleep=interrupted).call(work)
    assert work.calls == 1


def test_nested_retries_do_not_multiply(caller_of):
    inner, outer = caller_of(RetryPolicy(attempts=5)), caller_of(RetryPolicy(attempts=3))
    work = Failing(*[CONFLICT] * 99)
    with pytest.raises(errors.SerializationFailure):
        outer.call(inner.call, work)
    assert work.calls == 3


def test_a_task_that_outlives_the_attempt_that_started_it_is_retried_by_itself(caller_of):
    async def scenario():
        async def background():
            await released.wait()
            return await caller_of().call_async(work.later)

        async def starts():
            return asyncio.create_task(background())

        task = await caller_of().call_async(starts)
        released.set()
        return await task

    released, work = asyncio.Event(), Failing(CONFLICT)
    assert asyncio.run(scenario()) == "done"


def test_threads_do_not_inherit_an_attempt(caller_of):
    work = Failing(CONFLICT)

    def starts_a_thread():
        thread = threading.Thread(target=caller_of().call, args=(work,))
        thread.start()
        thread.join()

    caller_of().call(starts_a_thread)
    assert work.calls == 2


async def a_coroutine_function():
    return 1


def a_generator():
    yield 1


async def an_async_generator():
    yield 1


@pytest.mark.parametrize("function", [a_generator, an_async_generator])
def test_a_generator_cannot_be_retried(function, caller_of):
    with pytest.raises(UsageError, match="generator"):
        retry(function)
    with pytest.raises(UsageError, match="begins only later"):
        caller_of().call(function)


def test_a_coroutine_function_has_to_be_awaited(caller_of):
    with pytest.raises(UsageError, match="call_async"):
        caller_of().call(a_coroutine_function)
    with pytest.raises(UsageError, match="call_async"):
        caller_of().call(partial(a_coroutine_function))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: RetryPolicy(attempts=0),
        lambda: RetryPolicy(attempts=2.5),
        lambda: RetryPolicy(total_seconds=float("inf")),
        lambda: RetryPolicy(total_seconds=float("nan")),
        lambda: RetryPolicy(total_seconds=0.0),
        lambda: Pause(2.0, 1.0),
        lambda: Pause(-1.0, 1.0),
        lambda: RetryBudget(ratio=1.5),
        lambda: CircuitBreaker(failures=0),
        lambda: retry_testing(attempts=0).__enter__(),
    ],
)
def test_bounds_that_bound_nothing_are_refused(wrong):
    with pytest.raises(UsageError):
        wrong()


def test_tests_of_an_application_need_not_wait():
    began = time.monotonic()
    caller = RetryingCaller(RetryPolicy(conflict=Pause(3600.0, 3600.0), total_seconds=1e6, is_idempotent=True))
    with retry_testing(attempts=3):
        assert caller.call(Failing(CONFLICT, CONFLICT)) == "done"
        with pytest.raises(errors.SerializationFailure):
            caller.call(Failing(*[CONFLICT] * 3))
    with retry_testing(), pytest.raises(errors.SerializationFailure):
        caller.call(Failing(CONFLICT))
    assert time.monotonic() - began < 60.0
