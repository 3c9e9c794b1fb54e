"""What a real PgBouncer refuses, and what may be done about it, by psycopg and by asyncpg."""

import asyncio
import os
import re
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager, suppress

import asyncpg
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from ml_postgres_optimization.retry import (
    ConcurrencyLimit,
    Phase,
    Remedy,
    RetryingCaller,
    RetryPolicy,
    failure_of,
    pgbouncer_lines,
    rule_for,
)
from ml_postgres_optimization.retry.failures.rules import Pace
from ml_postgres_optimization.target.embedded.account import server_account

# Debian's package has it where only an administrator's PATH leads
PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
# it counts its own times in seconds
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(PGBOUNCER is None, reason="PgBouncer is not installed (Debian's package: pgbouncer)"),
]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@contextmanager
def pooler(folder, dsn, *lines, host=None, port=None):
    """Run PgBouncer before the server of `dsn`, with lines of its own in its file; yield its process and port."""
    where, here = conninfo_to_dict(dsn), free_port()
    directory = folder / f"pgbouncer-{here}"
    directory.mkdir()
    (directory / "users").write_text(f'"{where["user"]}" ""\n')
    target = f"host={host or where['host']} port={port or where['port']} dbname={where['dbname']}"
    settings = (
        f"[databases]\nshop = {target}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {here}\n"
        f"auth_type = trust\nauth_file = {directory}/users\nunix_socket_dir =\nlogfile = {directory}/log\n"
        f"pool_mode = transaction\nadmin_users = {where['user']}\n" + "\n".join(lines) + "\n"
    )
    (directory / "ini").write_text(settings)
    account = server_account()
    for path in (directory, *directory.iterdir()):
        if account.switched:  # it refuses to run as root
            shutil.chown(path, account.name)
    switched = ["runuser", "-u", account.name, "--"] if account.switched else []
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    with subprocess.Popen(
        [*switched, PGBOUNCER, directory / "ini"], env=environ, stderr=subprocess.DEVNULL
    ) as process:
        try:
            await_port(here, process, directory / "log")
            yield here
        finally:
            process.terminate()


def await_port(port, process, log):
    deadline = time.monotonic() + 20
    while True:
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.02)


def by_psycopg(port, user, statement="SELECT 1"):
    with psycopg.connect(
        host="127.0.0.1", port=port, user=user, dbname="shop", prepare_threshold=None, autocommit=True
    ) as connection:
        return connection.execute(statement).fetchall()


def by_asyncpg(port, user, statement="SELECT 1"):
    async def ask():
        connection = await asyncpg.connect(
            host="127.0.0.1", port=port, user=user, database="shop", statement_cache_size=0, timeout=20
        )
        try:
            return await connection.fetch(statement)
        finally:
            connection.terminate()

    return asyncio.run(ask())


DRIVERS = pytest.mark.parametrize("ask", [by_psycopg, by_asyncpg], ids=["psycopg", "asyncpg"])


def refusal(ask, port, user):
    """Return what the pooler refuses with, and what is to be done about it."""
    with pytest.raises((psycopg.Error, asyncpg.PostgresError, asyncpg.InterfaceError, OSError)) as raised:
        ask(port, user)
    failure = failure_of(raised.value)
    return failure, rule_for(failure, Phase.UNKNOWN)


def check_refused_safely(failure, rule, said):
    """It is to be done again in a new session, after a while: no statement has run."""
    assert re.search(said, failure.text), failure.text
    # psycopg gives no SQLSTATE for what fails while it connects
    assert failure.sqlstate in {"08P01", None}
    assert (rule.remedy, rule.pace, rule.is_before_anything) == (Remedy.RECONNECT, Pace.SHORTAGE, True)


@pytest.fixture
def user(database):
    return conninfo_to_dict(database)["user"]


@contextmanager
def occupied(port, user):
    """Hold the only connection of a pool, in a transaction."""
    with psycopg.connect(host="127.0.0.1", port=port, user=user, dbname="shop", prepare_threshold=None) as holder:
        holder.execute("SELECT 1")
        yield holder


@DRIVERS
def test_a_query_that_waits_for_too_long_is_refused_and_may_be_done_again(folder, database, user, ask):
    lines = ("default_pool_size = 1", "query_wait_timeout = 1")
    with pooler(folder, database, *lines) as port, occupied(port, user):
        failure, rule = refusal(ask, port, user)
    check_refused_safely(failure, rule, "query_wait_timeout")


@DRIVERS
def test_a_client_too_many_is_refused_and_may_come_again(folder, database, user, ask):
    with pooler(folder, database, "max_client_conn = 1") as port:
        with occupied(port, user):
            failure, rule = refusal(ask, port, user)
        check_refused_safely(failure, rule, "no more connections allowed")
        assert ask(port, user), "there is room again"


@DRIVERS
def test_a_server_that_cannot_be_reached_is_refused_by_the_pooler_and_may_be_asked_again(folder, database, user, ask):
    lines = ("server_login_retry = 60", "query_wait_timeout = 2", "server_connect_timeout = 1")
    with pooler(folder, database, *lines, host="127.0.0.1", port=free_port()) as port:
        first, second = refusal(ask, port, user), refusal(ask, port, user)
    for failure, rule in (first, second):
        check_refused_safely(failure, rule, "server_login_retry|cannot connect to server|query_wait_timeout|login")


@DRIVERS
def test_a_pooler_that_goes_away_in_a_transaction_has_lost_the_connection(folder, database, user, ask):
    with pooler(folder, database, "default_pool_size = 1") as port:
        with occupied(port, user) as holder:
            where = {"host": "127.0.0.1", "port": port, "user": user, "dbname": "pgbouncer"}
            # it is gone before it answers
            with psycopg.connect(**where, autocommit=True) as admin, suppress(psycopg.OperationalError):
                admin.execute("SHUTDOWN")
            with pytest.raises(psycopg.Error) as raised:
                holder.execute("SELECT 1")
        failure = failure_of(raised.value)
        rule = rule_for(failure, Phase.IN_TRANSACTION)
        assert (rule.remedy, rule.may_have_committed) == (Remedy.RECONNECT, True), failure
        failure, rule = refusal(ask, port, user)
    assert (rule.remedy, rule.is_unreachable) == (Remedy.RECONNECT, True), failure


def test_the_advice_for_a_pooler_is_what_it_takes_and_lets_in_so_many(folder, database, user):
    limit = ConcurrencyLimit(3)
    with pooler(folder, database, *pgbouncer_lines(limit).splitlines(), "query_wait_timeout = 1") as port:
        with occupied(port, user), occupied(port, user), occupied(port, user):
            failure, rule = refusal(by_psycopg, port, user)
            check_refused_safely(failure, rule, "query_wait_timeout")
        assert by_psycopg(port, user)


def test_a_retried_call_outlasts_a_pool_that_is_full_for_a_while(folder, database, user):
    """The refusal came before anything ran, so that even what is not idempotent is done again, once."""
    tries = []

    def write():
        tries.append(1)
        return by_psycopg(port, user, "INSERT INTO orders VALUES (1) RETURNING 1")

    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE orders (id int)")
    lines = ("default_pool_size = 1", "query_wait_timeout = 1")
    with pooler(folder, database, *lines) as port, occupied(port, user) as holder:
        caller = RetryingCaller(RetryPolicy(total_seconds=30), sleep=lambda _seconds: holder.rollback())
        assert caller.call(write) == [(1,)]
    assert len(tries) == 2
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM orders").fetchone() == (1,)
