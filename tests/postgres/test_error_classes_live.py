"""Failures of a real server have the class that their SQLSTATE promises."""

import asyncio
import re
import threading
from contextlib import ExitStack
from pathlib import Path

import asyncpg
import psycopg
import psycopg_pool
import pytest

from ml_postgres_optimization.retry import failure_of
from ml_postgres_optimization.retry.classification import ErrorClass, error_class
from ml_postgres_optimization.workload.process.session import failure_in, sqlstate_of


@pytest.fixture
def sessions(database):
    with ExitStack() as open_sessions:
        pair = [open_sessions.enter_context(psycopg.connect(database)) for _ in range(2)]
        pair[0].execute("CREATE TABLE account (id int PRIMARY KEY, balance int)")
        pair[0].execute("INSERT INTO account VALUES (1, 0), (2, 0)")
        pair[0].commit()
        yield pair


def failure(session, *statements):
    """Return the class of the failure that the last statement meets."""
    for statement in statements[:-1]:
        session.execute(statement)
    with pytest.raises(psycopg.Error) as raised:
        session.execute(statements[-1])
    if not session.closed:
        session.rollback()
    return error_class(raised.value.sqlstate)


def test_a_write_after_a_concurrent_one_is_a_serialization_failure(sessions):
    first, second = sessions
    second.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    second.execute("SELECT * FROM account")
    first.execute("UPDATE account SET balance = 1")
    first.commit()
    assert failure(second, "UPDATE account SET balance = 2") is ErrorClass.SERIALIZATION


def test_waiting_in_a_circle_is_a_deadlock(sessions):
    first, second = sessions
    for session in sessions:
        session.execute("SET deadlock_timeout = '10ms'")
    first.execute("UPDATE account SET balance = 1 WHERE id = 1")
    second.execute("UPDATE account SET balance = 1 WHERE id = 2")
    seen = []

    def cross(session, row):
        try:
            session.execute("UPDATE account SET balance = 2 WHERE id = %s", [row])
        except psycopg.Error as error:
            seen.append(error_class(error.sqlstate))
            session.rollback()

    other = threading.Thread(target=cross, args=(first, 2))
    other.start()
    cross(second, 1)
    other.join()
    assert seen == [ErrorClass.DEADLOCK]


def test_waiting_too_long_is_a_timeout(sessions):
    first, second = sessions
    assert failure(second, "SET LOCAL statement_timeout = '5ms'", "SELECT pg_sleep(5)") is ErrorClass.TIMEOUT
    first.execute("UPDATE account SET balance = 1")
    waiting = ("SET LOCAL lock_timeout = '5ms'", "UPDATE account SET balance = 2")
    assert failure(second, *waiting) is ErrorClass.TIMEOUT


def test_running_out_of_temporary_space_is_one_of_resources(sessions):
    sort = "SELECT count(*) FROM (SELECT n FROM generate_series(1, 200000) AS n ORDER BY random()) AS sorted"
    limits = ("SET LOCAL temp_file_limit = '100kB'", "SET LOCAL work_mem = '64kB'")
    assert failure(sessions[0], *limits, sort) is ErrorClass.RESOURCES


def test_a_session_that_was_ended_is_one_of_the_connection(sessions):
    first, second = sessions
    first.execute("SELECT pg_terminate_backend(%s)", [second.info.backend_pid])
    assert failure(second, "SELECT 1") is ErrorClass.CONNECTION
    assert failure(first, "SET TRANSACTION READ ONLY", "DELETE FROM account") is ErrorClass.CONNECTION


def test_a_refused_connection_has_no_sqlstate_and_is_one_of_the_connection():
    with pytest.raises(psycopg.OperationalError) as raised:
        psycopg.connect("host=127.0.0.1 port=1 connect_timeout=2")
    assert error_class(raised.value.sqlstate) is ErrorClass.CONNECTION


@pytest.mark.parametrize(
    "statement", ["INSERT INTO account VALUES (1, 0)", "SELECT 1 / 0", "SELECT nothing", "SELECT 'x'::int"]
)
def test_what_the_application_did_wrong_is_its_own(sessions, statement):
    assert failure(sessions[0], statement) is ErrorClass.OTHER


MEMBERS = {
    ErrorClass.SERIALIZATION: "40001",
    ErrorClass.DEADLOCK: "40P01",
    ErrorClass.CONNECTION: "08...|57P0[1-4]|25006|40003",
    ErrorClass.RESOURCES: "53...",
    ErrorClass.TIMEOUT: "55P03|57014|25P0[34]|57P05",
    ErrorClass.INTERNAL: "58...|XX...",
}
RAISE = "DO $$ BEGIN RAISE EXCEPTION 'said the server' USING ERRCODE = '{}'; END $$"


@pytest.fixture
def every_sqlstate(database):
    """Return all that this server's own list calls an error."""
    with psycopg.connect(database) as connection:
        (folder,) = connection.execute("SELECT setting FROM pg_config() WHERE name = 'SHAREDIR'").fetchone()
    lines = (Path(folder) / "errcodes.txt").read_text().splitlines()
    found = [line.split()[0] for line in lines if re.match(r"[0-9A-Z]{5}\s+E\s", line)]
    assert len(found) > 200
    return sorted(set(found))


def test_every_sqlstate_of_the_server_is_read_as_it_is_and_in_exactly_one_class(database, every_sqlstate):
    async def seen_by_the_load(parameters):
        connection = await asyncpg.connect(**parameters)
        try:
            return [await told(connection, code) for code in every_sqlstate]
        finally:
            await connection.close()

    async def told(connection, code):
        with pytest.raises(asyncpg.PostgresError) as raised:
            await connection.execute(RAISE.format(code))
        return raised.value

    with psycopg.connect(database, autocommit=True) as connection:
        info = connection.info
        place = {"host": info.host, "port": info.port, "user": info.user, "database": info.dbname}
        of_psycopg = []
        for code in every_sqlstate:
            with pytest.raises(psycopg.Error) as raised:
                connection.execute(RAISE.format(code))
            of_psycopg.append(raised.value)
    of_asyncpg = asyncio.run(seen_by_the_load(place))
    assert [sqlstate_of(error).decode() for error in of_asyncpg] == every_sqlstate
    assert [failure_of(error).sqlstate for error in of_psycopg] == every_sqlstate
    for code, error in zip(every_sqlstate, of_asyncpg, strict=True):
        classes = [name for name, pattern in MEMBERS.items() if re.fullmatch(pattern, code)] or [ErrorClass.OTHER]
        assert classes == [failure_of(error).error_class], code


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (asyncpg.InterfaceError("cannot perform operation: another operation is in progress"), ErrorClass.OTHER),
        (
            asyncpg.InterfaceError("cannot call PreparedStmt.f(): the prepared statement is closed"),
            ErrorClass.OTHER,
        ),
        (asyncpg.InterfaceError("connection is closed"), ErrorClass.CONNECTION),
        (asyncpg.InternalClientError("not connected"), ErrorClass.CONNECTION),
        (OSError("the line is cut"), ErrorClass.CONNECTION),
        (psycopg_pool.PoolTimeout("couldn't get a connection after 30.00 sec"), ErrorClass.RESOURCES),
        (psycopg.OperationalError("server closed the connection unexpectedly"), ErrorClass.CONNECTION),
        (psycopg.OperationalError("failed to resolve host 'db'"), ErrorClass.CONNECTION),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_has_no_sqlstate_is_in_one_class_too_and_has_a_code_of_it(error, expected):
    assert failure_in(error).sqlstate is None
    assert failure_in(error).error_class is expected
    assert error_class(sqlstate_of(error).decode()) is expected
