"""Retries and the limiter of the load generator on a real server."""

import threading
import time

import numpy as np
import psycopg
import pytest

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.retry import Pause, RetryPolicy
from ml_postgres_optimization.telemetry import Recorder, Snapshot, SystemClock
from ml_postgres_optimization.workload import (
    LoadGenerator,
    LoadLimiter,
    LoadPlan,
    LoadRetries,
    OperationKind,
    OperationMix,
    create_tables,
)
from ml_postgres_optimization.workload.faults import CommitCut, FaultProxy, hold_row_lock

SCALE = 0.005
SOON = Pause(0.005, 0.1)
# as often as need be: what bounds it is tested without a server
PATIENT = LoadRetries(
    policy=RetryPolicy(attempts=100, conflict=SOON, lock=SOON, reconnect=SOON), budget_reserve=100_000.0
)
READS = OperationMix({OperationKind.READ: 2, OperationKind.JOIN: 1, OperationKind.AGGREGATE: 1})
WRITES = OperationMix({OperationKind.WRITE: 1, OperationKind.TRANSACTION: 1})
TRANSFERS = OperationMix({OperationKind.TRANSACTION: 1})
UPDATES = OperationMix({OperationKind.UPDATE: 1})
LOST = {"57P01", "08003", "08006"}


@pytest.fixture
def loaded(database):
    create_tables(database, SCALE)
    return database


def one(dsn, query):
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(query).fetchone()[0]


def until(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def more(load, operations):
    before = load.counters.succeeded_total
    return lambda: load.counters.succeeded_total >= before + operations


def terminate_all(dsn):
    one(
        dsn,
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE application_name = 'genesis-load' AND datname = current_database()",
    )


def under_terminations(dsn, mix, retries, *, is_enough, rounds=20):
    """Return a load that has been stopped, whose sessions were ended again and again until that was enough."""
    plan = LoadPlan(mix, connections=4, clients=8, processes=1, retries=retries)
    with LoadGenerator(dsn, plan) as load:
        for _ in range(rounds):
            until(more(load, 50))
            terminate_all(dsn)
            until(more(load, 50))
            if is_enough(load.counters):
                break
    parts = load.counters.succeeded_total + load.counters.failed_total + load.counters.skipped_total
    assert load.counters.due_total == parts
    return load


def test_reads_all_succeed_in_the_end_when_their_sessions_are_ended(loaded):
    load = under_terminations(loaded, READS, PATIENT, is_enough=lambda counters: sum(counters.retried.values()) >= 4)
    assert load.counters.failed_total == 0
    assert load.counters.ambiguous_total == 0
    assert sum(load.counters.retried.values()) >= 4
    assert set(load.counters.retried) <= LOST


@pytest.mark.parametrize("retries", [None, PATIENT], ids=["once", "repeated"])
def test_a_write_is_there_once_if_it_succeeded_and_at_most_once_if_it_is_ambiguous(loaded, retries):
    def is_enough(counters):
        return counters.ambiguous_total >= 3 and (sum(counters.retried.values()) >= 1 or retries is None)

    load = under_terminations(loaded, WRITES, retries, is_enough=is_enough)
    rows = one(loaded, "SELECT count(*) FROM genesis_load.operations WHERE kind IN ('write', 'transaction')")
    counters = load.counters
    assert counters.ambiguous_total >= 3
    assert counters.succeeded_total <= rows <= counters.succeeded_total + counters.ambiguous_total
    if retries is not None:
        # a transaction that had not come to its COMMIT is done again, and what fails for good may have been committed
        assert counters.failed_total == counters.ambiguous_total
        assert set(counters.retried) <= LOST


def test_a_transaction_is_ambiguous_exactly_where_its_commit_was_sent_and_not_answered(loaded):
    with FaultProxy(loaded, seed=3) as line:
        plan = LoadPlan(TRANSFERS, connections=4, clients=4, processes=1, retries=PATIENT)
        with LoadGenerator(line.dsn, plan) as load:
            with line.cutting_commits(0.3, most=12):
                until(lambda: load.counters.failed_total == 12)
            until(more(load, 20))
    rows = one(loaded, "SELECT count(*) FROM genesis_load.operations WHERE kind = 'transaction'")
    certain = load.counters.succeeded_total + line.cuts[CommitCut.ANSWERED]
    assert load.counters.failed_total == load.counters.ambiguous_total == 12
    assert certain <= rows <= certain + line.cuts[CommitCut.FORWARDED]


@pytest.mark.parametrize("retries", [None, PATIENT], ids=["once", "repeated"])
def test_a_lock_that_is_not_to_be_had_in_time_is_tried_for_again(loaded, retries):
    settings = {"lock_timeout": "20ms"}
    plan = LoadPlan(UPDATES, None, 2, 2, key_count=1, processes=1, session_settings=settings, retries=retries)
    with LoadGenerator(loaded, plan) as load:
        until(more(load, 20))
        holder = threading.Thread(target=hold_row_lock, args=(loaded, 1, 0.3))
        holder.start()
        holder.join()
        until(more(load, 20))
    seen = load.counters.retried if retries else {"55P03": load.counters.failed_total}
    assert seen["55P03"] >= 2
    assert set(seen) == {"55P03"}
    assert load.counters.ambiguous_total == 0
    assert (load.counters.failed_total == 0) == (retries is not None)
    updates = one(loaded, "SELECT updates_total FROM genesis_load.accounts WHERE account_id = 1")
    assert updates == load.counters.succeeded_total


def test_transactions_that_cannot_be_put_in_an_order_are_done_again_as_a_whole(loaded):
    class Nothing:
        def snapshot(self):
            return Snapshot(SystemClock().now(), time.monotonic(), {})

    settings = {"default_transaction_isolation": "repeatable read"}
    plan = LoadPlan(TRANSFERS, None, 4, 4, key_count=2, processes=1, session_settings=settings, retries=PATIENT)
    balance = one(loaded, "SELECT sum(balance) FROM genesis_load.accounts")
    with LoadGenerator(loaded, plan) as load:
        recorder = Recorder(Nothing(), SystemClock(), samples=load.samples)
        until(lambda: load.counters.retried.get("40001", 0) >= 10 and load.counters.succeeded_total >= 10)
    window = recorder.finish(configuration_id="base")
    rows = one(loaded, "SELECT count(*) FROM genesis_load.operations WHERE kind = 'transaction'")
    assert rows == load.counters.succeeded_total
    assert one(loaded, "SELECT sum(balance) FROM genesis_load.accounts") == balance
    assert dict(window.retried) == dict(load.counters.retried)
    assert window.errors_before_retries["40001"] == window.errors.get("40001", 0) + window.retried["40001"]
    assert window.ambiguous_total == load.counters.ambiguous_total == 0


def test_no_more_operations_are_at_work_than_the_limiter_lets_in(loaded):
    plan = LoadPlan(READS, connections=8, clients=16, processes=1, limiter=LoadLimiter(initial=2, most=3))
    with LoadGenerator(loaded, plan) as load:
        until(more(load, 500))
        assert 1 <= load.concurrency_limit <= 3
        assert one(loaded, SESSIONS) == 8
    assert most_at_work(load.samples()) <= 3
    assert load.counters.failed_total == 0


SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'genesis-load'"


def most_at_work(batches, since_seconds=-np.inf, until_seconds=np.inf):
    """Return how many operations were under way at once, of those that were begun in a stretch of time."""
    start = np.concatenate([batch.start_seconds for batch in batches])
    end = np.concatenate([batch.end_seconds for batch in batches])
    chosen = (start >= since_seconds) & (start < until_seconds)
    start, end = start[chosen], end[chosen]
    steps = np.concatenate([np.ones(len(start)), -np.ones(len(end))])
    # one that ends when another starts has given its place to it
    return np.cumsum(steps[np.lexsort((steps, np.concatenate([start, end])))]).max()


def test_a_load_that_runs_is_held_below_a_ceiling_within_a_second_and_let_go(loaded):
    plan = LoadPlan(READS, connections=8, clients=16, processes=2)
    with LoadGenerator(loaded, plan) as load:
        until(more(load, 100))
        asked = time.monotonic()
        load.hold_below(2)
        until(lambda: time.monotonic() > asked + 0.5)
        until(more(load, 50))
        assert one(loaded, SESSIONS) == 8
        lifted = time.monotonic()
        load.hold_below(None)
        until(lambda: time.monotonic() > lifted + 0.5)
        until(more(load, 50))
        ended = time.monotonic()
    batches = load.samples()
    assert most_at_work(batches, until_seconds=asked) > 2
    assert most_at_work(batches, asked + 0.5, lifted) <= 2
    assert most_at_work(batches, lifted + 0.5, ended) > 2
    with pytest.raises(UsageError, match="ceiling"):
        load.hold_below(0)
