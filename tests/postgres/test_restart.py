"""Restarting real servers: our own, and one of the user's by a command."""

import shlex

import psycopg
import pytest

from ml_postgres_optimization.errors import ChangeRefused, TargetError, UsageError
from ml_postgres_optimization.target.embedded.account import server_account
from ml_postgres_optimization.target.embedded.postmaster import clean_up_after_crash
from ml_postgres_optimization.target.restart import CommandRestarter, EmbeddedRestarter, Rehearsal


def asked(dsn, query):
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(query).fetchone()[0]


def alter(dsn, statement):
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"ALTER SYSTEM {statement}")


def test_our_own_server_is_brought_back_when_it_does_not_start(own_server):
    before = asked(own_server.dsn, "SHOW shared_preload_libraries")
    alter(own_server.dsn, "SET shared_preload_libraries = 'there_is_none'")
    alter(own_server.dsn, "SET work_mem = '9MB'")
    with EmbeddedRestarter(own_server) as restarter:
        with pytest.raises(ChangeRefused, match="there_is_none"):
            restarter.restart({"shared_preload_libraries": None})
        assert asked(own_server.dsn, "SHOW shared_preload_libraries") == before
        assert asked(own_server.dsn, "SHOW work_mem") == "9MB", "what was not on trial stays"
        restarter.restart({})


def test_a_rehearsal_finds_out_and_leaves_nothing_behind(binaries, folder):
    with Rehearsal(binaries, parent=folder) as rehearsal:
        rehearsal.play({"shared_buffers": "16384"})
        with pytest.raises(ChangeRefused):
            rehearsal.play({"max_wal_senders": "300", "wal_level": "minimal"})
        rehearsal.play({})
    assert not [*folder.iterdir()]


def by_command(server, command=None):
    """Restart `server` as its owner would who has pg_ctl."""
    account = server_account()
    pg_ctl = [str(server.binaries.program("pg_ctl")), "-D", str(server.data_directory), "-w", "-m", "fast", "restart"]
    switched = ["runuser", "-u", account.name, "--"] if account.switched else []

    def connect():
        psycopg.connect(server.dsn).close()

    return CommandRestarter(
        command or shlex.join([*switched, *pg_ctl]),
        connect,
        data_directory=server.data_directory,
        binaries=server.binaries,
    )


@pytest.fixture
def users_server(own_server):
    if not own_server.binaries.program("pg_ctl").exists():
        pytest.skip("this build comes without pg_ctl")
    yield own_server
    clean_up_after_crash(own_server.data_directory, server_account())


def test_a_server_of_the_users_is_restarted_by_command(users_server):
    with by_command(users_server) as restarter:
        alter(users_server.dsn, "SET max_connections = 44")
        restarter.restart({"max_connections": None})
        assert asked(users_server.dsn, "SHOW max_connections") == "44"


def test_a_server_of_the_users_is_brought_back_when_it_does_not_start(users_server):
    with by_command(users_server) as restarter:
        alter(users_server.dsn, "SET shared_preload_libraries = 'there_is_none'")
        with pytest.raises(ChangeRefused, match="exit code 1"):
            restarter.restart({"shared_preload_libraries": None})
        assert asked(users_server.dsn, "SHOW shared_preload_libraries") != "there_is_none"


@pytest.mark.parametrize(("command", "complaint"), [("false", "exit code 1"), ("/there/is/none", "No such file")])
def test_a_command_that_fails_is_told(own_server, command, complaint):
    with by_command(own_server, command) as restarter, pytest.raises(TargetError, match=complaint):
        restarter.restart({})


@pytest.mark.parametrize("command", ["", "   ", "pg_ctl 'restart"])
def test_a_command_that_cannot_be_read_is_refused(own_server, command):
    with pytest.raises(UsageError, match="restart-command"):
        CommandRestarter(
            command, lambda: None, data_directory=own_server.data_directory, binaries=own_server.binaries
        )


@pytest.mark.parametrize("there", [True, False])
def test_a_server_that_could_not_be_brought_back_is_not_restarted(tmp_path, binaries, there):
    with pytest.raises(UsageError, match="could not be mended"):
        CommandRestarter("true", lambda: None, data_directory=tmp_path if there else None, binaries=binaries)
