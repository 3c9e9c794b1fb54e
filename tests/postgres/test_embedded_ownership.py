"""Whose server it is: locks, left-overs of the dead, and what is not ours."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from ml_postgres_optimization.errors import AlreadyRunning, EmbeddedServerFailed
from ml_postgres_optimization.target.embedded import EmbeddedServer
from ml_postgres_optimization.target.embedded.account import server_account

OWNER = """
import json, sys, time
from pathlib import Path
from ml_postgres_optimization.target.embedded import Binaries, EmbeddedServer
home, bin_directory, system_state = map(Path, sys.argv[1:4])
binaries = Binaries(bin_directory, int(sys.argv[4]), "")
server = EmbeddedServer.start(home, binaries=binaries, system_state=system_state)
print(json.dumps([server.dsn, str(server.data_directory)]), flush=True)
time.sleep(600)
"""


@pytest.fixture
def home(folder):
    return folder / "home"


@pytest.fixture
def system_state(session_folder):
    return session_folder / "system"


@pytest.fixture
def owner_process(home, binaries, system_state):
    """Begin to start a server from a process of its own, which is killed at the end."""
    owners = []

    def begin(*wrapped_in: str) -> subprocess.Popen:
        command = [*wrapped_in, sys.executable, "-c", OWNER, home, binaries.bin_directory, system_state]
        owners.append(subprocess.Popen([*command, str(binaries.version_num)], stdout=subprocess.PIPE, text=True))
        return owners[-1]

    yield begin
    for owner in owners:
        owner.kill()
        owner.wait()
        owner.stdout.close()
    EmbeddedServer.remove(home, system_state=system_state)


def query(dsn, statement):
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchone() if cursor.description else None


def postmaster_pid(data_directory):
    return int((Path(data_directory) / "postmaster.pid").read_text().split("\n", 1)[0])


def contents(folder):
    """Every file below a folder, with what it says and when it was written."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_mode) for path in files}


def test_a_second_owner_is_refused_and_may_attach(home, binaries, system_state):
    options = {"binaries": binaries, "system_state": system_state}
    with EmbeddedServer.start(home, **options) as server:
        with pytest.raises(AlreadyRunning, match="in use by another run"):
            EmbeddedServer.start(home, **options)
        attached = EmbeddedServer.attach(home, system_state=system_state)
        assert attached.dsn == server.dsn
        assert (attached.data_directory, attached.log_path) == (server.data_directory, server.log_path)
        assert query(attached.dsn, "SELECT 1") == (1,)
        with pytest.raises(AlreadyRunning, match="in use by another run"):
            EmbeddedServer.remove(home, system_state=system_state)
    with pytest.raises(EmbeddedServerFailed, match="No embedded server is running"):
        EmbeddedServer.attach(home, system_state=system_state)


def test_attaching_where_nothing_is_makes_nothing(home, system_state):
    with pytest.raises(EmbeddedServerFailed, match="No embedded server is running"):
        EmbeddedServer.attach(home, system_state=system_state)
    assert not home.exists()


def test_what_a_killed_owner_left_is_stopped_cleanly_and_started_anew(owner_process, home, binaries, system_state):
    owner = owner_process()
    dsn, data_directory = json.loads(owner.stdout.readline())
    query(dsn, "CREATE TABLE kept AS SELECT 42 AS number")
    left = psutil.Process(postmaster_pid(data_directory))
    owner.kill()
    owner.wait()
    assert left.is_running()
    with EmbeddedServer.start(home, binaries=binaries, system_state=system_state) as server:
        assert not left.is_running()
        assert not Path(conninfo_to_dict(dsn)["host"]).exists()
        assert query(server.dsn, "TABLE kept") == (42,)
        previous_log = server.log_path.with_name("server.log.1").read_text()
        assert "received fast shutdown request" in previous_log
        assert "database system is shut down" in previous_log


def test_what_a_crash_of_owner_and_server_left_is_recovered(owner_process, home, binaries, system_state):
    owner = owner_process()
    dsn, data_directory = json.loads(owner.stdout.readline())
    query(dsn, "CREATE TABLE kept AS SELECT 42 AS number")
    os.kill(postmaster_pid(data_directory), signal.SIGKILL)
    owner.kill()
    owner.wait()
    with EmbeddedServer.start(home, binaries=binaries, system_state=system_state) as server:
        assert query(server.dsn, "TABLE kept") == (42,)
        assert not Path(conninfo_to_dict(dsn)["host"]).exists()


def test_an_initialisation_cut_off_in_the_middle_is_done_anew(owner_process, home, binaries, system_state):
    owner = owner_process()
    while not list(home.glob("data.partial-*/base/1/*")):
        assert owner.poll() is None and not (home / "data").exists(), "it was too quick for this test"
        time.sleep(0.001)
    owner.kill()
    owner.wait()
    assert not (home / "data").exists()
    with EmbeddedServer.start(home, binaries=binaries, system_state=system_state) as server:
        assert query(server.dsn, "SELECT count(*) FROM pg_database") == (3,)
    assert not list(home.glob("data.partial-*"))


@pytest.fixture
def stopped(home, binaries, system_state):
    """The data directory of a server that was stopped."""
    with EmbeddedServer.start(home, binaries=binaries, system_state=system_state) as server:
        return server.data_directory


@pytest.fixture
def bystander():
    """A process of the server's account that has nothing to do with it."""
    with subprocess.Popen(["sleep", "600"], **server_account().process_arguments()) as process:
        yield process
        process.kill()


def test_a_pid_that_is_now_anothers_is_neither_believed_nor_killed(stopped, bystander, home, binaries, system_state):
    lines = [str(bystander.pid), str(stopped), "1700000000", "5432", "/tmp/genesis-pg-gone", "", "1 1", "ready"]
    (stopped / "postmaster.pid").write_text("\n".join([*lines, ""]))
    with pytest.raises(EmbeddedServerFailed, match="No embedded server is running"):
        EmbeddedServer.attach(home, system_state=system_state)
    with EmbeddedServer.start(home, binaries=binaries, system_state=system_state) as server:
        assert query(server.dsn, "SELECT 1") == (1,)
    assert bystander.poll() is None


def test_a_pid_file_that_a_full_disk_cut_off_is_cleaned_up(stopped, home, binaries, system_state):
    for text in ("", "12", "not a number\n"):
        (stopped / "postmaster.pid").write_text(text)
        with EmbeddedServer.start(home, binaries=binaries, system_state=system_state) as server:
            assert query(server.dsn, "SELECT 1") == (1,)


@pytest.mark.parametrize("marker", [None, "not JSON", "[]", '{"format": 2}'])
def test_a_data_directory_that_is_not_ours_is_left_alone(marker, home, binaries, system_state):
    data_directory = home / "data"
    data_directory.mkdir(parents=True)
    (data_directory / "PG_VERSION").write_text(f"{binaries.major}\n")
    (home / "lock").touch()
    if marker is not None:
        (data_directory / "genesis-embedded.json").write_text(marker)
    before = contents(home)
    for act in (EmbeddedServer.attach, EmbeddedServer.remove):
        with pytest.raises(EmbeddedServerFailed, match="not made by this program"):
            act(home, system_state=system_state)
    with pytest.raises(EmbeddedServerFailed, match="not made by this program"):
        EmbeddedServer.start(home, binaries=binaries, system_state=system_state)
    assert contents(home) == before


def test_a_home_that_is_itself_a_data_directory_is_left_alone(home, binaries, system_state):
    home.mkdir()
    (home / "PG_VERSION").write_text("15\n")
    with pytest.raises(EmbeddedServerFailed, match="not made by this program"):
        EmbeddedServer.start(home, binaries=binaries, system_state=system_state)
    assert not (home / "data").exists()


def test_data_of_a_version_that_is_not_installed_are_left_alone(stopped, home, binaries, system_state):
    (stopped / "PG_VERSION").write_text("9\n")
    before = contents(stopped)
    with pytest.raises(EmbeddedServerFailed, match=r"made by PostgreSQL 9, which is not installed"):
        EmbeddedServer.start(home, binaries=binaries, system_state=system_state)
    assert contents(stopped) == before


def test_a_removed_server_leaves_no_trace(stopped, home, system_state):
    assert stopped.exists()
    EmbeddedServer.remove(home, system_state=system_state)
    assert not home.exists()
    assert not stopped.exists()
    EmbeddedServer.remove(home, system_state=system_state)


def test_removing_spares_what_others_put_there(stopped, home, system_state):
    (home / "notes.txt").write_text("mine")
    EmbeddedServer.remove(home, system_state=system_state)
    assert [path.name for path in home.iterdir()] == ["notes.txt"]
