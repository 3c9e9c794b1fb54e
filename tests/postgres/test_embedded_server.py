"""An embedded server from its first start to its last stop."""

import json
import os
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psutil
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ml_postgres_optimization.errors import EmbeddedServerFailed, StateError
from ml_postgres_optimization.target.embedded import EmbeddedServer, cluster


@pytest.fixture
def start(folder, binaries, session_folder):
    """Start a server in the test's folder; it is stopped at the end."""
    servers = []

    def start(**options):
        servers.append(
            EmbeddedServer.start(
                folder / "home", **{"binaries": binaries, "system_state": session_folder / "system"} | options
            )
        )
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


def query(dsn, statement):
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchone() if cursor.description else None


def postmaster_pid(server):
    return int((server.data_directory / "postmaster.pid").read_text().split("\n", 1)[0])


def test_it_starts_as_initdb_made_it_durable_and_with_checksums(start):
    server = start()
    shown = {
        name: query(server.dsn, f"SHOW {name}")[0]
        for name in ("fsync", "full_page_writes", "synchronous_commit", "data_checksums", "server_encoding")
    }
    assert shown == {
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
        "data_checksums": "on",
        "server_encoding": "UTF8",
    }
    locale = query(server.dsn, "SELECT datcollate FROM pg_database WHERE datname = current_database()")[0]
    known = subprocess.run(["locale", "-a"], capture_output=True, text=True, check=True).stdout.lower()
    assert locale == ("C.UTF-8" if "c.utf" in known else "C")


def test_only_its_account_can_reach_it_and_only_through_the_socket(start):
    server = start()
    parameters = conninfo_to_dict(server.dsn)
    status = Path(parameters["host"]).stat()
    assert status.st_mode & 0o777 == 0o700
    assert status.st_uid == psutil.Process(postmaster_pid(server)).uids().real
    assert query(server.dsn, "SHOW listen_addresses") == ("",)
    assert not psutil.Process(postmaster_pid(server)).net_connections("tcp")
    assert (parameters["user"], parameters["dbname"]) == ("postgres", "postgres")


def test_over_tcp_it_asks_for_the_password_and_never_logs_it(start):
    server = start(tcp_port=0, password="it's-a-secret", settings={"log_statement": "all"})
    over_tcp = make_conninfo(server.dsn, host="127.0.0.1", port=server.tcp_port)
    assert query(make_conninfo(over_tcp, password="it's-a-secret"), "SELECT 1") == (1,)
    for wrong in ({"password": "a-guess"}, {"passfile": "/dev/null"}):
        with pytest.raises(psycopg.OperationalError):
            query(make_conninfo(over_tcp, **wrong), "SELECT 1")
    assert "secret" not in server.log_path.read_text()


def test_a_port_that_is_taken_is_told(start):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EmbeddedServerFailed, match="could not create any TCP/IP sockets"):
            start(tcp_port=port)


def test_its_settings_are_below_alter_system(start):
    server = start(settings={"work_mem": "5MB", "search_path": "it''s, \"a\\b\""})
    assert query(server.dsn, "SHOW search_path") == ("it''s, \"a\\b\"",)
    assert query(server.dsn, "SHOW work_mem") == ("5MB",)
    query(server.dsn, "ALTER SYSTEM SET work_mem = '6MB'")
    server.restart({"max_connections": "20"})
    assert query(server.dsn, "SHOW work_mem") == ("6MB",)


def test_a_restart_keeps_the_dsn_and_adds_settings(start):
    server = start(settings={"work_mem": "5MB"})
    dsn, pid = server.dsn, postmaster_pid(server)
    server.restart({"max_connections": "21"})
    assert (server.dsn, postmaster_pid(server) == pid) == (dsn, False)
    assert query(dsn, "SELECT current_setting('work_mem'), current_setting('max_connections')") == ("5MB", "21")


def test_a_setting_that_postgresql_refuses_is_told_and_does_no_harm(start):
    with pytest.raises(EmbeddedServerFailed, match=r"did not start; its log ends: .*shared_buffers") as caught:
        start(settings={"shared_buffers": "a lot"})
    assert "server.log" in caught.value.next_step
    server = start()
    with pytest.raises(EmbeddedServerFailed, match="max_connections"):
        server.restart({"max_connections": "-1"})
    server.restart({"max_connections": "22"})
    assert query(server.dsn, "SHOW max_connections") == ("22",)


def test_a_start_that_takes_too_long_is_given_up_and_leaves_nothing_running(start, folder):
    with pytest.raises(EmbeddedServerFailed, match="not ready within 0 s"):
        start(timeout_seconds=0.0)
    assert not [
        process for process in psutil.process_iter(["cmdline"]) if str(folder) in str(process.info["cmdline"])
    ]


def test_after_a_stop_nothing_is_left_but_the_data(start):
    server = start()
    query(server.dsn, "CREATE TABLE kept AS SELECT 42 AS number")
    pid, socket_directory = postmaster_pid(server), conninfo_to_dict(server.dsn)["host"]
    server.stop()
    server.stop()
    assert not psutil.pid_exists(pid)
    assert not Path(socket_directory).exists()
    assert not server.is_running
    with pytest.raises(EmbeddedServerFailed, match="was stopped"):
        _ = server.dsn
    with pytest.raises(EmbeddedServerFailed, match="was stopped"):
        server.restart()
    assert query(start().dsn, "TABLE kept") == (42,)


def test_the_log_begins_anew_at_each_start(start):
    server = start()
    with pytest.raises(psycopg.errors.UndefinedTable):
        query(server.dsn, "TABLE unheard_of")
    assert "unheard_of" in server.log_path.read_text()
    server.restart()
    assert "unheard_of" not in server.log_path.read_text()
    assert "unheard_of" in server.log_path.with_name("server.log.1").read_text()


def test_ctrl_c_on_our_terminal_does_not_reach_it(start):
    server = start()
    assert os.getsid(postmaster_pid(server)) != os.getsid(0)
    assert os.getpgid(postmaster_pid(server)) != os.getpgrp()


def test_commits_survive_a_crash_of_the_server(start):
    server = start()
    query(server.dsn, "CREATE TABLE kept AS SELECT 42 AS number")
    server.kill()
    assert not server.is_running
    server.restart()
    assert query(server.dsn, "TABLE kept") == (42,)
    assert "automatic recovery in progress" in server.log_path.read_text()


def test_a_backend_that_outlives_its_postmaster_does_not_prevent_a_restart(start):
    server = start()
    with closing(psycopg.connect(server.dsn)) as connection:
        pid = connection.info.backend_pid
        connection.pgconn.send_query(b"DO $$ BEGIN LOOP END LOOP; END $$")
        server.kill()
        assert psutil.pid_exists(pid), "this test needs a backend that does not notice"
        server.restart()
        assert query(server.dsn, "SELECT 1") == (1,)
        assert not psutil.pid_exists(pid)


def test_two_servers_run_at_once(start, own_server):
    server = start()
    assert {query(dsn, "SHOW data_directory")[0] for dsn in (server.dsn, own_server.dsn)} == {
        str(server.data_directory),
        str(own_server.data_directory),
    }


def test_a_home_that_cannot_be_made_is_told(folder, binaries):
    (folder / "file").write_text("in the way")
    with pytest.raises(StateError, match="Not a directory"):
        EmbeddedServer.start(folder / "file" / "home", binaries=binaries)


def test_it_stops_when_the_interpreter_ends(folder, binaries, session_folder):
    script = """
import json, sys
from pathlib import Path
from ml_postgres_optimization.target.embedded import Binaries, EmbeddedServer
home, bin_directory, system_state = map(Path, sys.argv[1:4])
binaries = Binaries(bin_directory, int(sys.argv[4]), "")
server = EmbeddedServer.start(home, binaries=binaries, system_state=system_state)
print(json.dumps([server.dsn, str(server.data_directory)]))
"""
    command = [sys.executable, "-c", script, folder, binaries.bin_directory, session_folder / "system"]
    command.append(str(binaries.version_num))
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    dsn, data_directory = json.loads(answer.stdout)
    assert Path(data_directory, "PG_VERSION").exists()
    assert not Path(data_directory, "postmaster.pid").exists()
    assert not Path(conninfo_to_dict(dsn)["host"]).exists()


def test_a_copy_that_takes_too_long_is_told_and_nothing_is_left(start, folder, session_folder, monkeypatch):
    monkeypatch.setattr(cluster, "BASEBACKUP_TIMEOUT_SECONDS", 0.01)
    server, home = start(), folder / "standby"
    with pytest.raises(EmbeddedServerFailed) as told:
        server.start_standby(home, system_state=session_folder / "system")
    if "No pg_basebackup is installed" in told.value.what:
        pytest.skip(told.value.what)
    assert told.value.what == "pg_basebackup took longer than 0.01 s."
    assert told.value.next_step
    assert not list(home.rglob("PG_VERSION"))
