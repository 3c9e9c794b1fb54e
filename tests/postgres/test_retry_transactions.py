"""Whatever happens to a COMMIT, the work is done exactly once, with every driver, or it is said that nobody knows."""

import asyncio
import os
import signal
import time
from contextlib import suppress

import psycopg
import pytest
import sqlalchemy
from psycopg import errors
from retried_connection import ALL, close, connect, execute, is_async, transaction_on
from sqlalchemy.orm import DeclarativeBase, Session, mapped_column
from sqlalchemy.pool import NullPool

from ml_postgres_optimization.errors import AlreadyApplied, CommitUnknown, UsageError
from ml_postgres_optimization.retry import (
    OPERATION_KEYS_TABLE,
    Pause,
    RetryBudget,
    RetryCounters,
    RetryingCaller,
    RetryPolicy,
    transaction,
)
from ml_postgres_optimization.retry.transactions.outcome import _INCARNATION
from ml_postgres_optimization.workload.faults import CommitCut, FaultProxy

SOON = RetryPolicy(
    attempts=8, conflict=Pause(0.0, 0.0), reconnect=Pause(0.01, 0.05), lock=Pause(0.0, 0.0), total_seconds=60.0
)


@pytest.fixture
def table(database):
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE applied (id int, note text)")
        connection.execute(OPERATION_KEYS_TABLE)
    return database


@pytest.fixture
def line(table):
    with FaultProxy(table, seed=7) as line:
        yield line


def caller(**more):
    return RetryingCaller(SOON, budget=RetryBudget(reserve=1000), **more)


def rows(dsn):
    with psycopg.connect(dsn) as connection:
        return connection.execute("SELECT id, count(*)::int FROM applied GROUP BY id ORDER BY id").fetchall()


async def applied(driver, dsn, number, inside=None, **more):
    """Write one row in a transaction of ours, on a new connection."""
    connection = await connect(driver, dsn)
    try:
        async with transaction_on(driver, connection, dsn, **more):
            await execute(connection, f"INSERT INTO applied VALUES ({number})")
            if inside:
                await inside(connection)
    finally:
        await close(connection)


@pytest.mark.parametrize("driver", ALL)
class TestEveryDriver:
    def test_it_commits_at_the_end_and_rolls_back_on_an_error(self, driver, table):
        async def fails(_connection):
            raise ValueError("the caller's own")

        asyncio.run(applied(driver, table, 1))
        with pytest.raises(ValueError, match="own"):
            asyncio.run(applied(driver, table, 2, fails))
        assert rows(table) == [(1, 1)]

    @pytest.mark.parametrize("way", CommitCut)
    def test_a_cut_around_commit_applies_it_exactly_once(self, driver, table, line, way):
        counters = RetryCounters()
        with line.cutting_commits(1.0, way, most=1):
            asyncio.run(caller(hooks=(counters,)).call_async(applied, driver, line.dsn, 1))
        assert rows(table) == [(1, 1)]
        assert line.cuts[way] == 1
        assert counters.retried.total() == (way is CommitCut.BEFORE)

    def test_a_session_that_is_ended_is_replaced_before_commit(self, driver, table):
        ended = []

        async def ended_once(connection):
            if not ended:
                ended.append(connection)
                await execute(connection, "SELECT pg_terminate_backend(pg_backend_pid())")

        asyncio.run(caller().call_async(applied, driver, table, 1, ended_once))
        assert rows(table) == [(1, 1)]

    def test_an_error_that_was_swallowed_is_no_silent_rollback(self, driver, table):
        async def swallows(connection):
            with pytest.raises(Exception, match="division by zero"):
                await execute(connection, "SELECT 1 / 0")

        with pytest.raises(Exception, match="current transaction is aborted"):
            asyncio.run(caller().call_async(applied, driver, table, 1, swallows))
        assert rows(table) == []

    def test_a_deferred_constraint_that_fails_at_commit_is_an_answer(self, driver, table):
        with psycopg.connect(table) as connection:
            connection.execute("ALTER TABLE applied ADD UNIQUE (id) DEFERRABLE INITIALLY DEFERRED")

        async def again(connection):
            await execute(connection, "INSERT INTO applied VALUES (1)")

        with pytest.raises(Exception, match="duplicate key"):
            asyncio.run(caller().call_async(applied, driver, table, 1, again))
        assert rows(table) == []

    def test_a_key_lets_an_operation_happen_once(self, driver, table):
        asyncio.run(applied(driver, table, 1, key="payment 17"))
        with pytest.raises(AlreadyApplied, match="payment 17"):
            asyncio.run(caller().call_async(applied, driver, table, 1, key="payment 17"))
        asyncio.run(applied(driver, table, 2, key="payment '18'; --"))
        assert rows(table) == [(1, 1), (2, 1)]

    def test_a_connection_that_is_in_a_transaction_is_refused(self, driver, table):
        async def nested():
            connection = await connect(driver, table)
            try:
                async with transaction_on(driver, connection, table):
                    await execute(connection, "SELECT 1")
                    async with transaction_on(driver, connection, table):
                        pass
            finally:
                await close(connection)

        with pytest.raises(UsageError, match="in a transaction already"):
            asyncio.run(nested())

    def test_what_failed_before_is_not_done_again_by_a_later_failure(self, driver, table, line):
        """A COMMIT that nobody knows about, which the caller has caught, and then a conflict."""
        calls = []

        async def unknown_and_then_a_conflict():
            calls.append(1)
            reconnect = unreachable if driver in ASYNC else nowhere
            with pytest.raises(CommitUnknown):
                await applied(driver, line.dsn, 1, reconnect=reconnect, settle_seconds=0.0)
            await applied(driver, table, 2, conflict)

        async def conflict(_connection):
            raise errors.SerializationFailure("could not serialize access")

        with line.cutting_commits(1.0, CommitCut.ANSWERED, most=1), pytest.raises(errors.SerializationFailure):
            asyncio.run(caller().call_async(unknown_and_then_a_conflict))
        assert (rows(table), len(calls)) == ([(1, 1)], 1)

    def test_a_connection_that_an_earlier_attempt_lost_is_not_taken_for_a_new_one(self, driver, table):
        if driver.endswith("session"):
            pytest.skip("a Session opens another connection by itself")
        attempts = []

        async def always_the_same(connection):
            attempts.append(1)
            async with transaction_on(driver, connection, table):
                await execute(connection, "SELECT pg_terminate_backend(pg_backend_pid())")

        async def scenario():
            connection = await connect(driver, table)
            try:
                await caller().call_async(always_the_same, connection)
            finally:
                await close(connection)

        with pytest.raises(UsageError, match="closed already"):
            asyncio.run(scenario())
        assert len(attempts) == 2

    def test_the_wrong_kind_of_with_is_said(self, driver, table):
        async def scenario():
            connection = await connect(driver, table)
            try:
                ours = transaction(connection, reconnect=lambda: None)
                if is_async(connection):
                    with ours:
                        pass
                else:
                    async with ours:
                        pass
            finally:
                await close(connection)

        with pytest.raises(UsageError, match="wrong way"):
            asyncio.run(scenario())

    def test_what_nobody_can_ask_is_unknown_and_not_done_again(self, driver, table, line):
        calls = []

        async def once():
            calls.append(1)
            reconnect = unreachable if driver in ASYNC else nowhere
            await applied(driver, line.dsn, 1, reconnect=reconnect, settle_seconds=0.0)

        with (
            line.cutting_commits(1.0, CommitCut.ANSWERED, most=1),
            pytest.raises(CommitUnknown, match="is not known"),
        ):
            asyncio.run(caller().call_async(once))
        assert (rows(table), len(calls)) == ([(1, 1)], 1)


ASYNC = {driver for driver in ALL if "async" in driver}


async def unreachable():
    raise ConnectionRefusedError


def nowhere():
    return psycopg.connect("host=127.0.0.1 port=1 connect_timeout=1")


def test_a_conflict_of_real_transactions_is_repeated(table):
    """Write skew: each reads what the other writes."""

    async def scenario():
        both = asyncio.Barrier(2)
        firsts = set()

        async def write(number):
            connection = await connect("psycopg async", table)
            try:
                await connection.set_isolation_level(psycopg.IsolationLevel.SERIALIZABLE)
                async with transaction(connection):
                    await execute(connection, "SELECT count(*) FROM applied")
                    if number not in firsts:
                        firsts.add(number)
                        await both.wait()
                    await execute(connection, f"INSERT INTO applied VALUES ({number})")
            finally:
                await close(connection)

        counters = RetryCounters()
        retrying = caller(hooks=(counters,))
        await asyncio.gather(*(retrying.call_async(write, number) for number in (1, 2)))
        return counters

    counters = asyncio.run(scenario())
    assert rows(table) == [(1, 1), (2, 1)]
    assert counters.retried.total() >= 1


def test_the_first_of_two_transactions_is_not_done_twice(table):
    async def two(connection_of):
        connection = await connection_of()
        try:
            async with transaction(connection):
                await execute(connection, "INSERT INTO applied VALUES (1)")
            async with transaction(connection):
                raise errors.SerializationFailure("the second one fails")
        finally:
            await close(connection)

    with pytest.raises(errors.SerializationFailure) as raised:
        asyncio.run(caller().call_async(two, lambda: connect("psycopg async", table)))
    assert "would be done twice" in raised.value.__notes__[0]
    assert rows(table) == [(1, 1)]


def test_a_transaction_that_only_read_may_be_repeated_whatever_was_lost(table, line):
    calls = []

    def read():
        calls.append(1)
        with psycopg.connect(line.dsn) as connection, transaction(connection):
            connection.execute("SELECT count(*) FROM applied")

    with line.cutting_commits(1.0, CommitCut.ANSWERED, most=1):
        caller().call(read)
    assert len(calls) == 2


def test_outside_of_a_retried_call_it_finds_out_all_the_same(table, line):
    with line.cutting_commits(1.0, CommitCut.FORWARDED, most=1):
        asyncio.run(applied("psycopg", line.dsn, 1))
    assert rows(table) == [(1, 1)]


def test_a_pipeline_is_refused(table):
    with psycopg.connect(table) as connection, connection.pipeline(), pytest.raises(UsageError, match="pipeline"):
        transaction(connection)


def test_what_a_session_writes_only_at_the_end_is_seen(table, line):
    class Mapped(DeclarativeBase):
        pass

    class Applied(Mapped):
        __tablename__ = "applied"
        id = mapped_column(sqlalchemy.Integer, primary_key=True)
        note = mapped_column(sqlalchemy.Text)

    def write():
        engine = sqlalchemy.create_engine(
            "postgresql+psycopg://", creator=lambda: psycopg.connect(line.dsn), poolclass=NullPool
        )
        with Session(engine) as session, transaction(session):
            session.add(Applied(id=1))

    with line.cutting_commits(1.0, CommitCut.ANSWERED, most=1):
        caller().call(write)
    assert rows(table) == [(1, 1)]


def test_an_engine_that_commits_each_statement_is_refused(table):
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(table),
        isolation_level="AUTOCOMMIT",
        poolclass=NullPool,
    )
    with engine.connect() as connection, pytest.raises(UsageError, match="AUTOCOMMIT"), transaction(connection):
        connection.execute(sqlalchemy.text("INSERT INTO applied VALUES (1)"))
    assert rows(table) == []


def test_a_cancelled_task_stays_cancelled_where_its_session_is_gone(table):
    async def work():
        connection = await connect("asyncpg", table)
        try:
            async with transaction_on("asyncpg", connection, table):
                calls.append(connection.get_server_pid())
                await asyncio.sleep(60)
        finally:
            connection.terminate()

    async def scenario():
        task = asyncio.create_task(caller().call_async(work))
        while not calls:
            await asyncio.sleep(0.01)
        with psycopg.connect(table) as other:
            other.execute("SELECT pg_terminate_backend(%s, 5000)", [calls[0]])
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    calls = []
    asyncio.run(scenario())
    assert len(calls) == 1


def test_an_unknown_driver_is_said():
    with pytest.raises(UsageError, match="psycopg 3, psycopg 2, asyncpg"):
        transaction(object())


class TestACrash:
    """The numbers of transactions that a crash took from the log are given again."""

    @pytest.fixture
    def crashing(self, own_server):
        with psycopg.connect(own_server.dsn, autocommit=True) as connection:
            connection.execute("CREATE TABLE applied (id int, note text)")
            connection.execute(OPERATION_KEYS_TABLE)
            # or it might bring the numbers to the disk
            connection.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
            connection.execute("SELECT pg_reload_conf()")
            connection.execute("CHECKPOINT")
        return own_server

    def crash(self, server):
        pid = int((server.data_directory / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        server.restart()

    def lost_commit(self, server, key=None):
        """Write a row, and crash the server before its COMMIT; somebody else gets its number afterwards."""
        self.other_number = None

        def reconnect():
            self.other_number = self.other_number or self.somebody_elses_number(server)
            return psycopg.connect(server.dsn, autocommit=True)

        connection = psycopg.connect(server.dsn)
        try:
            with transaction(connection, key=key, reconnect=reconnect) as ours:
                connection.execute("SET LOCAL synchronous_commit = off")
                connection.execute("INSERT INTO applied VALUES (1)")
                self.own_number = connection.execute("SELECT pg_current_xact_id()::text").fetchone()[0]
                ours._session = CrashingSession(ours._session, lambda: self.crash(server))
        finally:
            connection.close()

    def somebody_elses_number(self, server):
        with psycopg.connect(server.dsn) as other:
            other.execute("INSERT INTO applied VALUES (99)")
            return other.execute("SELECT pg_current_xact_id()::text").fetchone()[0]

    def test_another_ones_commit_is_not_taken_for_ours(self, crashing):
        with pytest.raises(CommitUnknown):
            self.lost_commit(crashing)
        assert self.other_number == self.own_number
        assert rows(crashing.dsn) == [(99, 1)]

    def test_a_crash_that_the_postmaster_survives_is_another_start(self, crashing):
        query = f"SELECT {_INCARNATION}, pg_postmaster_start_time()"
        with psycopg.connect(crashing.dsn) as connection:
            system, before, started_at = connection.execute(query).fetchone()
            victim = connection.execute("SELECT pg_backend_pid()").fetchone()[0]
            os.kill(victim, signal.SIGKILL)
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
        crashed = RetryingCaller(
            RetryPolicy(attempts=100, reconnect=Pause(0.05, 0.1)), budget=RetryBudget(reserve=100)
        )
        # whoever connects before the postmaster has heard of it still meets the start before
        deadline = time.monotonic() + 20.0
        now = (system, before, started_at)
        while now[1] == before and time.monotonic() < deadline:
            with suppress(psycopg.OperationalError), crashed.call(psycopg.connect, crashing.dsn) as connection:
                now = connection.execute(query).fetchone()
        assert now[0::2] == (system, started_at)
        assert now[1] != before

    def test_with_a_key_it_is_known(self, crashing):
        with pytest.raises(psycopg.OperationalError):
            self.lost_commit(crashing, key="payment 17")
        assert self.other_number == self.own_number
        assert rows(crashing.dsn) == [(99, 1)]


class CrashingSession:
    """A session whose server crashes after it has said by what its transaction is known."""

    def __init__(self, session, crash):
        self._session = session
        self._crash = crash

    def __getattr__(self, name):
        return getattr(self._session, name)

    def row(self, *arguments):
        answer = self._session.row(*arguments)
        self._crash()
        return answer
