"""What may be done about each failure, as each driver reports it."""

import asyncio

import asyncpg
import psycopg
import psycopg2
import psycopg_pool
import pytest
import sqlalchemy.exc
from psycopg import errors

from ml_postgres_optimization.retry import Phase, Remedy, failure_of, rule_for
from ml_postgres_optimization.retry.failures import Pace, Permission

BEFORE_COMMIT = (Phase.BEGINNING, Phase.IN_TRANSACTION)
MAY_BE_COMMITTED = (Phase.COMMIT_SENT, Phase.UNKNOWN)


def rule(error, phase=Phase.IN_TRANSACTION):
    return rule_for(failure_of(error), phase)


def of_code(code, text="said the server"):
    return errors.lookup(code)(text)


@pytest.mark.parametrize("code", ["40001", "40P01"])
@pytest.mark.parametrize("phase", Phase)
def test_conflicts_are_repeated_soon_whatever_had_been_sent(code, phase):
    found = rule(of_code(code), phase)
    assert (found.remedy, found.pace, found.most) == (Remedy.REPEAT, Pace.CONFLICT, None)


@pytest.mark.parametrize("code", ["08000", "08003", "08006", "57P01", "57P02"])
def test_a_lost_connection_is_harmless_before_commit_and_says_nothing_after(code):
    assert {rule(of_code(code), phase).remedy for phase in BEFORE_COMMIT} == {Remedy.RECONNECT}
    assert {rule(of_code(code), phase).remedy for phase in MAY_BE_COMMITTED} == {Remedy.VERIFY}


@pytest.mark.parametrize("code", ["40003", "08007"])
@pytest.mark.parametrize("phase", Phase)
def test_where_the_server_itself_does_not_know_it_has_to_be_verified(code, phase):
    assert rule(of_code(code), phase).remedy is Remedy.VERIFY


@pytest.mark.parametrize("code", ["08001", "57P03", "53300"])
@pytest.mark.parametrize("phase", [*BEFORE_COMMIT, Phase.UNKNOWN])
def test_what_was_never_let_in_has_committed_nothing(code, phase):
    assert rule(of_code(code), phase).remedy is Remedy.RECONNECT


@pytest.mark.parametrize(
    ("code", "permission"),
    [
        ("23505", Permission.KEYS_FROM_READS),
        ("23P01", Permission.KEYS_FROM_READS),
        ("57014", Permission.REPEATS_CANCELLED),
    ],
)
def test_some_are_repeated_once_and_only_by_permission(code, permission):
    found = rule(of_code(code))
    assert (found.remedy, found.most, found.permission) == (Remedy.REPEAT, 1, permission)


@pytest.mark.parametrize(
    "code",
    [
        *("08004", "08P01", "21000", "22012", "22P02", "23502", "23503", "23514", "25P02", "28000", "28P01", "3D000"),
        *("42501", "42601", "42P01", "53100", "53400", "58030", "XX000", "XX001", "XX002", "0A000", "54001", "P0001"),
    ],
)
@pytest.mark.parametrize("phase", [*BEFORE_COMMIT, Phase.UNKNOWN, Phase.ROLLED_BACK])
def test_the_rest_is_never_retried(code, phase):
    assert rule(of_code(code), phase).remedy is Remedy.NONE


@pytest.mark.parametrize("code", ["08006", "08P01", "53100", "53200", "57P01", "57P03", "58030", "XX000", None])
def test_what_is_no_answer_to_commit_has_to_be_verified(code):
    error = of_code(code) if code else psycopg2.DatabaseError("SSL SYSCALL error: EOF detected")
    assert rule(error, Phase.COMMIT_SENT).remedy is Remedy.VERIFY


@pytest.mark.parametrize("code", ["23505", "40001", "42501", "P0001", "57014"])
def test_a_refusal_of_commit_is_an_answer(code):
    assert rule(of_code(code), Phase.COMMIT_SENT) == rule(of_code(code), Phase.IN_TRANSACTION)


@pytest.mark.parametrize(
    ("code", "text", "remedy", "most"),
    [
        ("0A000", "cached plan must not change result type", Remedy.REPEAT, 1),
        ("0A000", "cached statement plan is invalid due to a database schema change", Remedy.REPEAT, 1),
        ("08P01", "server conn crashed?", Remedy.RECONNECT, None),
        ("26000", 'prepared statement "s1" does not exist', Remedy.RECONNECT, 1),
        ("53200", "out of memory", Remedy.REPEAT, 1),
        ("53200", "out of shared memory", Remedy.NONE, None),
        ("08P01", "query_wait_timeout", Remedy.RECONNECT, None),
        ("08P01", "no more connections allowed (max_client_conn)", Remedy.RECONNECT, None),
        ("08P01", "server login has been failing, try again later (server_login_retry)", Remedy.RECONNECT, None),
        ("25006", "cannot execute UPDATE in a read-only transaction", Remedy.RECONNECT, None),
        ("25P03", "terminating connection due to idle-in-transaction timeout", Remedy.RECONNECT, None),
        ("57P05", "terminating connection due to idle-session timeout", Remedy.RECONNECT, None),
        ("55P03", "canceling statement due to lock timeout", Remedy.REPEAT, None),
    ],
)
def test_some_are_told_apart_by_their_words_or_bounded(code, text, remedy, most):
    found = rule(of_code(code, text))
    assert (found.remedy, found.most) == (remedy, most)


@pytest.mark.parametrize(
    ("text", "remedy", "pace"),
    [
        ('connection to server at "::1", port 5 failed: Connection refused', Remedy.RECONNECT, Pace.RECONNECT),
        ("connection failed: FATAL:  the database system is starting up", Remedy.RECONNECT, Pace.RECONNECT),
        ("connection failed: FATAL:  sorry, too many clients already", Remedy.RECONNECT, Pace.SHORTAGE),
        ("FATAL: remaining connection slots are reserved for roles", Remedy.RECONNECT, Pace.SHORTAGE),
        ('connection failed: FATAL:  password authentication failed for user "u"', Remedy.NONE, Pace.CONFLICT),
        ('connection failed: FATAL:  no pg_hba.conf entry for host "h"', Remedy.NONE, Pace.CONFLICT),
        ('connection failed: FATAL:  database "d" does not exist', Remedy.NONE, Pace.CONFLICT),
        ("connection failed: FATAL:  query_wait_timeout", Remedy.RECONNECT, Pace.SHORTAGE),
        ("failed to resolve host 'db': [Errno -2] Name or service not known", Remedy.RECONNECT, Pace.RECONNECT),
    ],
)
@pytest.mark.parametrize("phase", [Phase.UNKNOWN, Phase.BEGINNING])
def test_what_fails_while_connecting_has_no_sqlstate_but_words(text, remedy, pace, phase):
    found = rule(psycopg.OperationalError(text), phase)
    assert (found.remedy, found.pace) == (remedy, pace)


@pytest.mark.parametrize(
    "error",
    [
        psycopg.OperationalError("consuming input failed: server closed the connection unexpectedly"),
        psycopg.OperationalError("the connection is closed"),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.InterfaceError("cannot call Connection.fetch(): connection has been closed"),
        asyncpg.InternalClientError("cannot switch to state 15; another operation (2) is in progress"),
        asyncpg.InternalClientError('cannot switch to "idle" state; protocol is in the "failed" state'),
        asyncpg.InternalClientError("not connected"),
        psycopg.OperationalError("dies ist in einer Sprache, die niemand hier kennt"),
    ],
)
def test_a_lost_connection_without_a_sqlstate_is_one_in_any_language(error):
    assert rule(error, Phase.IN_TRANSACTION).remedy is Remedy.RECONNECT
    assert rule(error, Phase.UNKNOWN).remedy is Remedy.VERIFY


@pytest.mark.parametrize(
    "error",
    [
        psycopg.ProgrammingError("the query has 1 placeholder but 2 parameters were passed"),
        psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes"),
        psycopg_pool.PoolClosed("the pool 'p' is already closed"),
        asyncpg.InterfaceError("cannot perform operation: another operation is in progress"),
    ],
)
@pytest.mark.parametrize("phase", [*BEFORE_COMMIT, Phase.UNKNOWN])
def test_a_wrong_use_of_the_driver_is_no_lost_connection(error, phase):
    assert rule(error, phase).remedy is Remedy.NONE


def test_a_pool_that_has_none_to_lend_waits_like_a_server_that_has_none():
    for error in (
        psycopg_pool.PoolTimeout("couldn't get a connection after 30.00 sec"),
        psycopg_pool.TooManyRequests("the pool 'p' has already 3 requests waiting"),
        sqlalchemy.exc.TimeoutError("QueuePool limit of size 5 overflow 10 reached, connection timed out"),
    ):
        found = rule(error, Phase.UNKNOWN)
        assert (found.remedy, found.pace, found.is_unreachable) == (Remedy.RECONNECT, Pace.SHORTAGE, False)


def test_the_true_reason_is_found_behind_asyncpgs_own():
    error = asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
    error.__cause__ = asyncpg.AdminShutdownError("terminating connection due to administrator command")
    assert failure_of(error).sqlstate == "57P01"


def test_what_sqlalchemy_wraps_is_seen():
    wrapped = sqlalchemy.exc.OperationalError("UPDATE", {}, of_code("40P01", "deadlock detected"))
    assert failure_of(wrapped).sqlstate == "40P01"
    without_code = sqlalchemy.exc.OperationalError("UPDATE", {}, psycopg.OperationalError("server closed it"))
    assert rule(without_code).remedy is Remedy.RECONNECT


def test_a_statement_that_sqlalchemy_shows_is_not_taken_for_what_the_server_said():
    for words in ("Connection refused", "certificate", "password authentication failed", "QueuePool limit"):
        lost = psycopg.OperationalError("server closed the connection unexpectedly")
        wrapped = sqlalchemy.exc.OperationalError("INSERT INTO log", {"line": words}, lost)
        assert rule(wrapped, Phase.UNKNOWN).remedy is Remedy.VERIFY
        assert words not in failure_of(wrapped).text


def test_an_error_of_the_applications_own_keeps_what_it_was_raised_from():
    class TransferFailed(Exception):
        pass

    try:
        try:
            raise of_code("40001")
        except psycopg.Error as error:
            raise TransferFailed from error
    except TransferFailed as error:
        assert failure_of(error).sqlstate == "40001"


def test_a_failed_transaction_is_judged_by_its_first_error():
    try:
        try:
            raise of_code("40001")
        except psycopg.Error:
            raise of_code("25P02", "current transaction is aborted")  # noqa: B904  (that is what happens)
    except psycopg.Error as error:
        assert failure_of(error).sqlstate == "40001"
    assert rule(of_code("25P02")).remedy is Remedy.NONE


@pytest.mark.parametrize(
    "error", [ValueError("no"), KeyError("x"), FileNotFoundError("f"), TimeoutError(), ConnectionRefusedError()]
)
def test_failures_of_others_are_none_of_the_databases(error):
    try:
        raise error
    except Exception as raised:
        assert failure_of(raised) is None


@pytest.mark.parametrize("host", ["127.0.0.1", "/nowhere"])
def test_a_refused_connection_of_asyncpgs_is_the_databases(host):
    async def refused():
        await asyncpg.connect(host=host, port=1, user="u", password="p", database="d", timeout=5)

    with pytest.raises(OSError) as raised:
        asyncio.run(refused())
    found = rule(raised.value, Phase.UNKNOWN)
    assert (found.remedy, found.is_before_anything) == (Remedy.RECONNECT, True)


def test_a_circle_of_causes_ends():
    first, second = of_code("40001"), of_code("57P01")
    first.__cause__, second.__cause__ = second, first
    assert failure_of(first).sqlstate == "40001"


def test_what_a_pooler_refuses_is_no_lost_connection_because_asyncpg_calls_it_one():
    """As a real PgBouncer has it: tests/postgres/test_pgbouncer.py."""
    gone = asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
    gone.__cause__ = asyncpg.ProtocolViolationError("query_wait_timeout")
    found = rule(gone, Phase.UNKNOWN)
    assert failure_of(gone).sqlstate == "08P01"
    assert (found.remedy, found.pace, found.is_before_anything) == (Remedy.RECONNECT, Pace.SHORTAGE, True)
