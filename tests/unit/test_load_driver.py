"""Workers on scripted sessions: nothing is lost from the count, repetitions are bounded, and a limit is one."""

import asyncio
import itertools
import pickle
import random
import time
from dataclasses import replace

import asyncpg
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.retry import Pause, RetryPolicy
from ml_postgres_optimization.workload import (
    LoadArm,
    LoadLimiter,
    LoadPlan,
    LoadRetries,
    OperationKind,
    OperationMix,
    ScriptMix,
)
from ml_postgres_optimization.workload.arrival import Stream, ZipfKeys
from ml_postgres_optimization.workload.process.driver import Driver
from ml_postgres_optimization.workload.process.messages import Share
from ml_postgres_optimization.workload.process.schedule import ClosedLoop
from ml_postgres_optimization.workload.process.serving import Calls
from ml_postgres_optimization.workload.script import parse_script

READS = OperationMix({OperationKind.READ: 1})
WRITES = OperationMix({OperationKind.WRITE: 1})
MIXED = OperationMix({OperationKind.READ: 1, OperationKind.WRITE: 1})
SOON = Pause(0.0, 0.001)
POLICY = RetryPolicy(conflict=SOON, lock=SOON, reconnect=SOON, shortage=SOON)
RETRIES = LoadRetries(policy=POLICY, breaker_failures=1_000)
DEADLOCK = asyncpg.DeadlockDetectedError("deadlock detected")
GONE = asyncpg.AdminShutdownError("terminating connection due to administrator command")
WRONG = asyncpg.UndefinedTableError("no such table")


class Outcomes:
    """What the attempts on all sessions meet, one after the other; success once the list is over."""

    def __init__(self, *outcomes, then=None):
        self._outcomes, self._then = list(outcomes), then
        self.begun_seconds = []
        self.at_work = self.most_at_work = 0

    async def attempt(self):
        self.begun_seconds.append(time.monotonic())
        outcome = self._outcomes.pop(0) if self._outcomes else self._then
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        try:
            await asyncio.sleep(0)
            if isinstance(outcome, Exception):
                raise outcome
            if outcome is not None:
                await outcome.wait()
        finally:
            self.at_work -= 1


class Late:
    """A failure that waits for its turn."""

    def __init__(self, error):
        self._error, self.turn = error, asyncio.Event()

    async def wait(self):
        await self.turn.wait()
        raise self._error


class ScriptedSession:
    def __init__(self, outcomes, settings):
        self._outcomes, self.settings, self._is_closed = outcomes, settings, False
        self.performers = [self.perform] * len(OperationKind)

    async def perform(self, _key, _other, _amount):
        try:
            await self._outcomes.attempt()
        except asyncpg.AdminShutdownError:
            self._is_closed = True
            raise

    def is_closed(self):
        return self._is_closed

    def forget(self, _kind_index):
        pass

    async def arrange(self, settings):
        self.settings = settings

    async def close(self):
        self._is_closed = True


class Counted:
    """A driver in a closed loop of so many clients, and what it has told so far."""

    def __init__(self, outcomes, mix=READS, *, clients=1, retries=None, limiter=None, queue_limit=1_000, most=1_000):
        sessions = itertools.count(1)

        async def open_session(settings):
            if next(sessions) > most:
                await asyncio.Event().wait()  # the server is full, and says nothing
            self.sessions.append(ScriptedSession(outcomes, settings))
            return self.sessions[-1]

        self.driver = Driver(
            open_session,
            mix,
            queue_limit=queue_limit,
            keeps_lag=False,
            coin=random.Random(1),
            calls=Calls(retries, mix) if retries else None,
            new_limit=limiter.limit if limiter else None,
        )
        share = Share(connections=1, clients=clients, rate_per_second=None, mix=mix)
        self._schedule = ClosedLoop(Stream(1, 0, ZipfKeys(100, 0.9)), share)
        self.sessions = []
        self.due = self.skipped = 0
        self.retried = {}
        self.samples, self.ambiguous = [], []

    def begin(self, connections):
        self.driver.set_connections(connections)
        self.driver.begin(self._schedule)

    def last_ones(self):
        """Let nobody ask again."""
        self._schedule.change(Share(connections=1, clients=0, rate_per_second=None, mix=READS))

    def take(self):
        for batch in self.driver.take_batches():
            self.due += batch.due_total
            self.skipped += batch.skipped_total
            self.samples += batch.samples()
            self.ambiguous += (batch.ambiguous if batch.ambiguous.size else np.zeros(len(batch), bool)).tolist()
            for code, count in batch.retried.items():
                self.retried[code] = self.retried.get(code, 0) + count
        return self

    @property
    def ended(self):
        return len(self.samples)

    @property
    def waiting(self):
        return sum(len(lane.queue) for lane in self.driver._lanes) + len(self.driver._attempts._aside)

    @property
    def at_work(self):
        """How many have been handed to a session."""
        return sum(lane._at_work for lane in self.driver._lanes)

    async def until(self, condition):
        async with asyncio.timeout(20.0):
            while not condition(self.take()):
                await asyncio.sleep(0)


outcomes = st.lists(st.sampled_from([None, None, DEADLOCK, GONE, WRONG]), max_size=60)


@settings(max_examples=60, deadline=None)
@given(
    outcomes=outcomes,
    clients=st.integers(1, 12),
    retries=st.sampled_from([None, RETRIES]),
    limiter=st.sampled_from([None, LoadLimiter(initial=2, most=3)]),
    queue_limit=st.integers(1, 12),
    orders=st.lists(
        st.one_of(
            st.integers(0, 5),
            st.sampled_from(["divide", "hold", "lift"]),
            st.integers(5, 60).map(lambda turns: -turns),
        ),
        max_size=8,
    ),
)
def test_what_came_due_is_finished_skipped_or_under_way_at_every_point(
    outcomes, clients, retries, limiter, queue_limit, orders
):
    async def run():
        load = Counted(
            Outcomes(*outcomes), MIXED, clients=clients, retries=retries, limiter=limiter, queue_limit=queue_limit
        )
        load.begin(3)
        is_divided, sessions = False, 3
        for order in orders:
            if order == "divide":
                is_divided = True
                load.driver.divide((LoadArm("one", {}), LoadArm("two", {})))
            elif order in ("hold", "lift"):
                load.driver.hold_below(2 if order == "hold" else None)
            elif order >= 0:
                sessions = max(sessions, order)  # those beyond end what they are at
                load.driver.set_connections(order)
            for _ in range(-order if isinstance(order, int) and order < 0 else 3):
                await asyncio.sleep(0)
                load.take()
                at_work = load.due - load.ended - load.skipped - load.waiting
                assert 0 <= at_work <= sessions
                # a lane that was given up when the workers were divided has operations at work still
                assert is_divided or at_work == load.at_work
        await load.driver.stop(0.0 if len(orders) % 2 else 1.0)
        return load.take()

    load = asyncio.run(run())
    assert load.due == load.ended + load.skipped
    assert all(sample.intended_start_seconds <= sample.start_seconds <= sample.end_seconds for sample in load.samples)


def test_a_repeated_operation_is_one_sample_from_its_first_attempt_to_its_last_answer():
    async def run():
        seen = Outcomes(DEADLOCK, DEADLOCK)
        load = Counted(seen, retries=RETRIES)
        load.begin(1)
        load.last_ones()
        await load.until(lambda load: load.ended == 1)
        await load.driver.stop(0.0)
        return seen, load.take()

    seen, load = asyncio.run(run())
    (sample,) = load.samples
    assert sample.sqlstate is None
    assert len(seen.begun_seconds) == 3
    assert sample.start_seconds <= seen.begun_seconds[0]
    assert sample.end_seconds >= seen.begun_seconds[2]
    assert load.retried == {"40P01": 2}


def test_without_retries_each_failure_is_one_of_an_operation():
    async def run():
        load = Counted(Outcomes(DEADLOCK, GONE, WRONG))
        load.begin(1)
        await load.until(lambda load: load.ended >= 4)
        await load.driver.stop(1.0)
        return load.take()

    load = asyncio.run(run())
    assert [sample.sqlstate for sample in load.samples[:4]] == ["40P01", "57P01", "42P01", None]
    assert load.retried == {}


@pytest.mark.parametrize(("kind", "is_repeated"), [(OperationKind.READ, True), (OperationKind.WRITE, False)])
def test_a_lost_write_may_have_been_committed_and_is_not_done_again(kind, is_repeated):
    async def run():
        seen = Outcomes(GONE)
        load = Counted(seen, OperationMix({kind: 1}), retries=RETRIES)
        load.begin(1)
        load.last_ones()
        await load.until(lambda load: load.ended == 1)
        await load.driver.stop(0.0)
        return seen, load.take()

    seen, load = asyncio.run(run())
    assert len(seen.begun_seconds) == 1 + is_repeated
    assert [sample.sqlstate for sample in load.samples] == [None if is_repeated else "57P01"]
    assert load.ambiguous == [not is_repeated]
    assert load.retried == ({"57P01": 1} if is_repeated else {})


def test_repetitions_are_bounded_by_the_budget_where_nothing_ever_succeeds():
    async def run():
        seen = Outcomes(then=DEADLOCK)
        load = Counted(seen, clients=8, retries=replace(RETRIES, budget_reserve=5.0))
        load.begin(4)
        await load.until(lambda load: load.ended >= 2_000)
        await load.driver.stop(1.0)
        return seen, load.take()

    seen, load = asyncio.run(run())
    repetitions = len(seen.begun_seconds) - load.ended
    assert 0.08 * load.ended < repetitions <= 0.1 * load.due + 5
    assert load.retried == {"40P01": repetitions}
    assert {sample.sqlstate for sample in load.samples} == {"40P01"}


def test_a_session_does_other_work_while_an_operation_waits_for_its_next_attempt():
    async def run():
        slow = RetryPolicy(conflict=Pause(3_600.0, 3_600.0), total_seconds=10_000.0)
        load = Counted(Outcomes(DEADLOCK), clients=2, retries=LoadRetries(policy=slow))
        load.begin(1)
        await load.until(lambda load: load.ended >= 100)
        assert {sample.sqlstate for sample in load.samples} == {None}
        load.last_ones()
        # it does not wait for an hour: what was begun ends as its last attempt did
        async with asyncio.timeout(20.0):
            await load.driver.stop(3_600.0)
        return load.take()

    load = asyncio.run(run())
    assert [sample.sqlstate for sample in load.samples if sample.sqlstate] == ["40P01"]
    assert load.retried == {}
    assert load.due == load.ended + load.skipped


def test_a_pause_ends_what_waits_for_its_next_attempt():
    async def run():
        slow = RetryPolicy(conflict=Pause(3_600.0, 3_600.0), total_seconds=10_000.0)
        load = Counted(Outcomes(then=DEADLOCK), clients=3, retries=LoadRetries(policy=slow))
        load.begin(3)
        await load.until(lambda _: len(load.driver._attempts._aside) == 3)
        load.last_ones()
        load.driver.set_connections(0)
        await load.until(lambda load: load.ended == 3)
        await load.driver.stop(1.0)
        return load.take()

    load = asyncio.run(run())
    assert (load.due, load.skipped, load.waiting) == (3, 0, 0)


def test_what_fails_during_a_pause_does_not_wait_for_the_end_of_it():
    async def run():
        late = Late(DEADLOCK)
        load = Counted(Outcomes(late), retries=RETRIES)
        load.begin(1)
        await load.until(lambda _: load.driver._seats and not load.waiting and load.due == 1)
        load.last_ones()
        load.driver.set_connections(0)
        late.turn.set()
        await load.until(lambda load: load.ended == 1)
        await load.driver.stop(1.0)
        return load.take()

    assert [sample.sqlstate for sample in asyncio.run(run()).samples] == ["40P01"]


def test_an_operation_that_waits_for_the_circuit_is_counted_when_all_ends_at_once():
    async def run():
        load = Counted(Outcomes(GONE), retries=replace(RETRIES, breaker_failures=1))
        load.begin(1)
        await load.until(lambda load: load.driver.connections_lost_total == 1 and not load.waiting)
        await load.driver.stop(0.0)
        return load.take()

    load = asyncio.run(run())
    assert [sample.sqlstate for sample in load.samples] == ["57P01"]
    assert (load.due, load.skipped) == (1, 0)


def test_an_operation_whose_session_is_lost_when_all_ends_is_counted():
    async def run():
        load = Counted(Outcomes())
        load.driver.set_connections(1)
        await load.until(lambda _: load.driver._lanes[0]._idle)
        await load.sessions[0].close()
        load.begin(1)
        await load.driver.stop(1.0)
        return load.take()

    load = asyncio.run(run())
    assert (load.due, load.ended, load.skipped) == (1, 0, 1)


def test_an_open_circuit_holds_operations_back_until_a_probe_succeeds():
    async def run():
        seen = Outcomes(GONE, GONE, GONE, GONE)
        retries = LoadRetries(policy=POLICY, breaker_failures=2)
        load = Counted(seen, clients=4, retries=retries)
        load.begin(4)
        await load.until(lambda load: load.ended >= 20 and load.retried == {"57P01": 4})
        await load.driver.stop(1.0)
        return seen, load.take()

    seen, load = asyncio.run(run())
    assert {sample.sqlstate for sample in load.samples} == {None}
    # nobody for the half of half a second at least
    assert max(np.diff(seen.begun_seconds)) > 0.2


def test_lost_writes_which_are_not_repeated_open_the_circuit_too():
    async def run():
        seen = Outcomes(GONE, GONE)
        load = Counted(seen, mix=WRITES, retries=LoadRetries(policy=POLICY, breaker_failures=2))
        load.begin(1)
        await load.until(lambda load: load.ended >= 10)
        await load.driver.stop(1.0)
        return seen, load.take()

    seen, load = asyncio.run(run())
    assert [sample.sqlstate for sample in load.samples][:3] == ["57P01", "57P01", None]
    assert max(np.diff(seen.begun_seconds)) > 0.2


def test_a_pause_does_not_wait_for_the_circuit():
    async def run():
        load = Counted(Outcomes(GONE), retries=replace(RETRIES, breaker_failures=1))
        load.begin(1)
        await load.until(lambda load: load.driver.connections_lost_total == 1 and not load.waiting)
        load.driver.set_connections(0)
        await load.until(lambda load: load.ended == 1)
        await load.driver.stop(1.0)
        return load.take()

    load = asyncio.run(run())
    assert [sample.sqlstate for sample in load.samples] == ["57P01"]
    assert load.due == load.ended + load.skipped


@pytest.mark.parametrize("retries", [None, RETRIES])
def test_no_more_are_at_work_than_the_limit_and_first_come_is_first_served(retries):
    async def run():
        seen = Outcomes()
        load = Counted(seen, clients=20, retries=retries, limiter=LoadLimiter(initial=2, most=2))
        load.begin(8)
        # its blocks last a tenth of a second at least: one, and two by turns
        await load.until(lambda load: load.ended >= 500 and seen.most_at_work > 1)
        assert load.driver.concurrency_limit in {1, 2}
        await load.driver.stop(1.0)
        return seen, load.take()

    seen, load = asyncio.run(run())
    assert seen.most_at_work == 2
    due = [sample.intended_start_seconds for sample in sorted(load.samples, key=lambda sample: sample.start_seconds)]
    assert due == sorted(due)


@pytest.mark.parametrize("limiter", [None, LoadLimiter(initial=4, most=4)])
def test_below_a_ceiling_fewer_are_at_work_on_the_same_sessions_until_it_is_lifted(limiter):
    async def run():
        seen = Outcomes()
        load = Counted(seen, clients=20, limiter=limiter)
        load.driver.hold_below(1)
        load.begin(4)
        await load.until(lambda load: load.ended >= 30)
        assert (seen.most_at_work, len(load.sessions)) == (1, 4)
        load.driver.divide((LoadArm("one", {}), LoadArm("two", {})))
        seen.most_at_work = 0
        await load.until(lambda load: load.ended >= 90)
        assert seen.most_at_work <= 2, "one of each arm"
        load.driver.divide(())
        load.driver.hold_below(None)
        await load.until(lambda _: seen.most_at_work >= 3)
        assert len(load.sessions) == 4
        await load.driver.stop(1.0)
        return load.take()

    load = asyncio.run(run())
    assert load.due == load.ended + load.skipped


def test_a_place_is_free_for_others_when_its_session_is_lost():
    async def run():
        load = Counted(Outcomes(None, GONE), clients=3, limiter=LoadLimiter(initial=1, most=1), most=3)
        load.begin(3)
        await load.until(lambda load: load.ended >= 50)
        await load.driver.stop(0.0)
        return load.take()

    load = asyncio.run(run())
    assert [sample.sqlstate for sample in load.samples].count("57P01") == 1
    assert load.due == load.ended + load.skipped


def test_scripts_are_repeated_only_where_their_owner_says_that_they_write_nothing():
    scripts = tuple(parse_script("SELECT 1;", name=name) for name in ("report", "order"))
    calls = Calls(RETRIES, ScriptMix(scripts, read_only=frozenset({"report"})))
    assert calls.begin(0, "") is not None
    assert calls.begin(1, "") is None
    with pytest.raises(UsageError, match="archive"):
        ScriptMix(scripts, read_only=frozenset({"archive"}))


def test_a_plan_with_retries_and_a_limiter_can_be_sent_to_another_process():
    plan = LoadPlan(READS, retries=RETRIES, limiter=LoadLimiter(initial=3))
    assert pickle.loads(pickle.dumps(plan)) == plan


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: LoadRetries(budget_ratio=2.0),
        lambda: LoadRetries(budget_reserve=-1.0),
        lambda: LoadRetries(breaker_failures=0),
        lambda: LoadLimiter(initial=0),
        lambda: LoadLimiter(initial=9, most=8),
    ],
)
def test_what_bounds_nothing_is_refused(wrong):
    with pytest.raises(UsageError):
        wrong()
