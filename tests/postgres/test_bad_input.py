"""Bad input and bad luck: the right exit code, two clear lines, nothing lost, nothing half-changed."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from command_line import ROOT, CommandLine, by_hand, clean_environment, rows, written_settings
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from rewriting_proxy import as_version_13, rewriting_proxy

from ml_postgres_optimization.interfaces.commands import extended_test
from ml_postgres_optimization.interfaces.workbench import load
from ml_postgres_optimization.target.embedded import EmbeddedServer
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings, LastingConnection
from ml_postgres_optimization.target.postgres.lock import optimizer_lock

CHANGING = (("setup",), ("optimize",), ("optimize", "--simulate"), ("test", "--simulate"), ("rollback",))
RECORDED = (("status",), ("history",), ("export",), ("optimize",), ("train",))
SHORT = ("--duration", "0.0008", "--scale", "0.02", "--level", "BASIC")


def named(words):
    return " ".join(words)


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path):
    clean_environment(monkeypatch, tmp_path / "home")
    monkeypatch.setattr(load, "CAPACITY_SECONDS", 0.5)
    return CommandLine(capsys, tmp_path / "home")


@pytest.fixture
def here(cli, database):
    """The command line on a fresh database."""
    cli.dsn = database
    return cli


class TestCommandLine:
    """What is refused before any server is asked, or any folder made."""

    @pytest.mark.parametrize(
        ("words", "fragments"),
        [
            (("--mode", "nonsense"), ("'nonsense'", "setup, optimize, test, all")),
            (("--mode", ""), ("''", "setup, optimize, test, all")),
            (("--mode", "ALL"), ("'ALL'", "setup, optimize, test, all")),
            (("--mode",), ("--mode", "run.py --help")),
            (("--unknown",), ("--unknown", "run.py --help")),
            (("unexpected",), ("unexpected", "run.py --help")),
            (("--duration", "-1"), ("--duration is '-1'", "above 0")),
            (("--duration", "0"), ("--duration is '0'", "above 0")),
            (("--duration", "1e9"), ("--duration is '1e9'", "at most 8784 hours")),
            (("--duration", "nan"), ("--duration is 'nan'", "above 0")),
            (("--duration", "inf"), ("--duration is 'inf'", "above 0")),
            (("--duration", "abc"), ("--duration is 'abc'", "must be a valid number")),
            (("--duration", ""), ("--duration is ''", "must be a valid number")),
            (("--level", "foo"), ("--level is 'foo'", "'BASIC', 'MEDIUM', 'HIGH' or 'EXTREME'")),
            (("--scale", "0"), ("--scale is '0'", "above 0")),
            (("--scale", "nan"), ("--scale is 'nan'", "above 0")),
            (("--seed", "x"), ("--seed is 'x'", "must be a valid integer")),
            (("--seed", "-1"), ("--seed is '-1'", "greater than or equal to 0")),
            (("--dsn", ""), ("--dsn is empty",)),
            (("--dsn", "postgresql://u:sekret@/d?no=1"), ("--dsn cannot be read", "host=")),
        ],
        ids=lambda value: named(value) if value and value[0].startswith("-") else None,
    )
    def test_run_py(self, cli, words, fragments):
        ended = cli.classic(*words).is_refused(2, *fragments)
        assert "sekret" not in ended.err
        assert ended.out == ""
        assert not cli.home.exists() or "--dsn" in words

    @pytest.mark.parametrize(
        ("words", "fragments"),
        [
            ((), ("Missing command", "genesis-pg --help")),
            (("nonsense",), ("'nonsense'", "genesis-pg --help")),
            (("history", "--limit", "0"), ("--limit", "'0'", "greater than or equal to 1")),
            (("history", "--limit", "many"), ("--limit", "'many'", "valid integer")),
            (("setup", "--retention-days", "0"), ("--retention-days is '0'", "greater than or equal to 1")),
            (("setup", "--retention-days", "1e9"), ("--retention-days is '1e9'",)),
            (("test", "--minimum-success-ratio", "1.5"), ("'1.5'", "between 0 and 1")),
            (("test", "--maximum-mean-milliseconds", "-5"), ("'-5'", "above 0")),
            (("optimize", "--objective", "median"), ("'median'", "'mean', 'p95', 'p99' or 'throughput'")),
            (("optimize", "--memory-limit-bytes", "8GB"), ("'8GB'", "valid integer")),
        ],
        ids=lambda value: named(value) if value and isinstance(value, tuple) else None,
    )
    def test_genesis_pg(self, cli, words, fragments):
        assert cli(*words).is_refused(2, *fragments).out == ""
        assert not cli.home.exists()

    @pytest.mark.parametrize(
        ("variable", "value", "fragments"),
        [
            ("GENESIS_DURATION_HOURS", "abc", ("'abc'", "Set another GENESIS_DURATION_HOURS")),
            ("GENESIS_LEVEL", "low", ("'low'", "GENESIS_LEVEL")),
            ("GENESIS_SIMULATE", "perhaps", ("'perhaps'", "GENESIS_SIMULATE")),
            ("POSTGRES_PORT", "abc", ("POSTGRES_PORT is 'abc'", "1 to 65535")),
            ("POSTGRES_PORT", "70000", ("POSTGRES_PORT is '70000'", "1 to 65535")),
            ("PGPORT", "abc", ("PGPORT is 'abc'", "1 to 65535")),
            ("POSTGRES_PASSWORD_FILE", "/nowhere/at/all", ("/nowhere/at/all", "POSTGRES_PASSWORD")),
        ],
    )
    def test_the_environment(self, cli, monkeypatch, variable, value, fragments):
        if variable == "PGPORT":
            monkeypatch.setenv("PGHOST", "/nowhere")
        monkeypatch.setenv(variable, value)
        cli.classic("--mode", "setup").is_refused(2, *fragments)

    def test_a_port_that_is_none_is_a_setting_to_doctor(self, cli, monkeypatch):
        monkeypatch.setenv("POSTGRES_PORT", "abc")
        ended = cli("doctor", "--json")
        assert ended.code == 2
        assert [check["name"] for check in ended.document["checks"] if check["state"] == "failure"] == ["settings"]

    def test_what_is_empty_in_the_environment_is_not_chosen(self, here, monkeypatch):
        monkeypatch.setenv("GENESIS_DURATION_HOURS", "")
        here("doctor").done()


class TestInput:
    """What only a server can tell to be wrong."""

    def test_an_unknown_format(self, here):
        here("export", "--format", "xml").is_refused(2, "'xml'", "csv or parquet")

    @pytest.mark.parametrize("dry_run", [(), ("--dry-run",)])
    def test_a_rollback_to_nowhere(self, here, dry_run):
        here("rollback", "--to", "nonsense", *dry_run).is_refused(2, "nonsense", "baseline")

    @pytest.mark.parametrize("name", ["no_such_knob", "fsync"])
    def test_a_knob_that_nobody_may_allow(self, here, name):
        here("setup").done()
        here("optimize", "--allow-knob", name, "--dry-run").is_refused(2, name)

    def test_a_simulation_too_short_for_anything(self, here, database):
        here("setup").done()
        here("simulate", "--duration", "0.0001").is_refused(2, "0.36 s", "at least")
        assert rows(database, "SELECT 1 FROM pg_namespace WHERE nspname = 'genesis_load'") == []

    def test_an_export_to_a_place_that_is_none(self, here):
        here("setup").done()
        here("export", "--directory", "/proc/nowhere").is_refused(2, "/proc/nowhere", "--directory")


class TestServer:
    """Servers that cannot serve us."""

    @pytest.mark.parametrize("words", CHANGING, ids=named)
    def test_down(self, cli, words):
        cli.dsn = "host=127.0.0.1 port=1 dbname=x user=nobody"
        cli(*words).is_refused(3, "127.0.0.1:1", "pg_isready")

    def test_unknown_host(self, cli):
        cli.dsn = "host=nowhere.invalid dbname=x user=nobody"
        cli("status").is_refused(3, "nowhere.invalid")

    def test_no_such_database(self, cli, server):
        cli.dsn = make_conninfo(server.dsn, dbname="not_there")
        cli("status").is_refused(3, "not_there", "createdb")

    @pytest.fixture
    def with_password(self, binaries, folder, session_folder):
        with EmbeddedServer.start(
            folder, binaries=binaries, tcp_port=0, password="right", system_state=session_folder / "system"
        ) as server:
            yield server

    def test_wrong_password(self, cli, with_password, monkeypatch):
        monkeypatch.setenv("POSTGRES_HOST", "127.0.0.1")
        monkeypatch.setenv("POSTGRES_PORT", str(with_password.tcp_port))
        monkeypatch.setenv("POSTGRES_USER", "postgres")
        monkeypatch.setenv("POSTGRES_PASSWORD", "sekret")
        ended = cli.classic("--mode", "setup", "--debug")
        assert ended.code == 3
        cli.classic("--mode", "setup").is_refused(3, "password authentication failed", "POSTGRES_PASSWORD")
        written = "".join(path.read_text() for path in (cli.home / "logs").iterdir())
        assert "sekret" not in ended.err + ended.out + written
        monkeypatch.setenv("POSTGRES_PASSWORD", "right")
        cli.classic("--mode", "setup").done()
        written = "".join(path.read_text() for path in (cli.home / "logs").iterdir())
        assert "right" not in written

    @pytest.mark.parametrize("words", [*CHANGING, ("status",)], ids=named)
    def test_version_13(self, cli, database, words):
        parameters = conninfo_to_dict(database)
        with rewriting_proxy(database, as_version_13) as port:
            cli.dsn = make_conninfo(database, host="127.0.0.1", port=port, user=parameters["user"])
            cli(*words).is_refused(3, "PostgreSQL 13", "14")

    @pytest.mark.parametrize("words", CHANGING, ids=named)
    def test_read_only_by_setting(self, here, database, words):
        name = sql.Identifier(conninfo_to_dict(database)["dbname"])
        if words != ("setup",):
            here("setup").done()
        by_hand(database, sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name))
        here(*words, *(SHORT if words[0] in {"optimize", "test"} else ())).is_refused(3, "read-only")

    def test_a_standby(self, cli, own_server):
        cli.dsn = own_server.dsn
        cli("setup").done()
        (own_server.data_directory / "standby.signal").touch(mode=0o644)
        own_server.restart()
        for words in (("setup",), ("optimize",), ("optimize", "--dry-run"), ("test", "--simulate"), ("rollback",)):
            cli(*words).is_refused(3, "standby" if words[0] != "setup" else "read-only")
        for words in (("status",), ("history",)):
            cli(*words).done()
        assert cli("doctor").code == 1

    @pytest.mark.parametrize("words", RECORDED, ids=named)
    def test_without_our_schema(self, here, database, words):
        here(*words).is_refused(3, "schema genesis is not there", "genesis-pg setup")
        assert rows(database, "SELECT 1 FROM pg_namespace WHERE nspname = 'genesis'") == []

    @pytest.mark.parametrize("words", [("setup",), ("uninstall",), *RECORDED], ids=named)
    def test_a_schema_of_somebody_else(self, here, database, words):
        by_hand(database, "CREATE SCHEMA genesis", "CREATE TABLE genesis.mine AS SELECT 1 AS one")
        here(*words).is_refused(3, "genesis")
        tables = rows(database, "SELECT relname FROM pg_class WHERE relnamespace = 'genesis'::regnamespace")
        assert tables == [("mine",)]


class TestPrivileges:
    """A role that may not do everything gets what it may, and is told the rest."""

    def test_an_owner_is_told_what_it_goes_without(self, cli, owner):
        cli.dsn = owner
        assert "This role goes without it: " in cli("setup").done().out

    def test_an_owner_is_told_what_cannot_be_tuned(self, cli, owner):
        cli.dsn = owner
        cli("setup").done()
        left_out = cli("optimize", "--dry-run", "--json").done().document["left_out"]
        assert "work_mem" in left_out
        assert cli("doctor").done().out.count("GRANT")

    @pytest.mark.pg(">= 15")
    def test_what_doctor_says_mends_it(self, cli, owner, database):
        cli.dsn = owner
        cli("setup").done()
        before = {check["name"]: check for check in cli("doctor", "--json").document["checks"]}
        privileges = {name: check["mend"] for name, check in before.items() if name.startswith("privileges.")}
        assert all(mend.startswith("GRANT") for mend in privileges.values()) and len(privileges) == 3
        by_hand(database, *privileges.values())
        try:
            after = {check["name"]: check["state"] for check in cli("doctor", "--json").document["checks"]}
            assert {after.get(name, "ok") for name in privileges} == {"ok"}
            assert cli("optimize", "--dry-run", "--json").done().document["sql"]
        finally:
            role = sql.Identifier(conninfo_to_dict(owner)["user"])
            by_hand(database, sql.SQL("DROP OWNED BY {}").format(role))

    @pytest.mark.pg(">= 15")
    def test_what_doctor_says_lets_a_guard_in(self, cli, owner, database, binaries):
        if not binaries.has_library("dblink"):
            pytest.skip("these binaries come without dblink")
        cli.dsn, seen = owner, []
        try:
            while True:
                checks = {check["name"]: check for check in cli("doctor", "--json").document["checks"]}
                guard = checks["protection.guard_session"]
                if guard["state"] == "ok":
                    break
                assert guard["found"] not in seen
                seen.append(guard["found"])
                told = "genesis-pg doctor" in guard["mend"]
                by_hand(database, checks["privileges.visibility"]["mend"] if told else guard["mend"])
        finally:
            by_hand(database, sql.SQL("DROP OWNED BY {}").format(sql.Identifier(conninfo_to_dict(owner)["user"])))
        words = ("needs the extension dblink", "cannot see", "permission denied")
        assert [word in found for word, found in zip(words, seen, strict=True)] == [True] * 3

    @pytest.mark.pg("< 15")
    def test_no_grant_is_advised_that_does_not_help(self, cli, owner):
        cli.dsn = owner
        cli("setup").done()
        checks = {check["name"]: check["mend"] for check in cli("doctor", "--json").document["checks"]}
        assert "lets only superusers" in checks["privileges.alter_system"]
        assert "privileges.visibility" not in checks

    def test_an_owner_with_load_of_ours_is_told_what_is_left_out(self, cli, owner, server):
        cli.dsn = owner
        before = written_settings(server.dsn)
        cli("setup").done()
        assert "settings of the server cannot be tuned: " in cli("optimize", "--simulate", *SHORT).done().out
        assert written_settings(server.dsn) == before

    def test_an_owner_without_load_of_ours_can_tune_nothing_and_is_told_so(self, cli, owner, server):
        cli.dsn = owner
        before = written_settings(server.dsn)
        cli("setup").done()
        mending = (
            "the GRANT that mends it" if server.version_num >= 150000 else "lets only superusers change settings"
        )
        ended = cli("optimize", "--duration", "0.002").done(3)
        assert mending in ended.out and "ALTER SYSTEM SET" in ended.out and "ALTER DATABASE" in ended.out
        assert written_settings(server.dsn) == before

    def test_a_role_that_may_not_even_make_the_schema(self, cli, server, database):
        name = f"nobody_{os.getpid()}"
        by_hand(server.dsn, f"CREATE ROLE {name} LOGIN")
        try:
            cli.dsn = make_conninfo(database, user=name)
            cli("setup").is_refused(3, "permission denied")
            cli("test", "--simulate", *SHORT).is_refused(3)
        finally:
            by_hand(server.dsn, f"DROP ROLE {name}")
        assert rows(database, "SELECT 1 FROM pg_namespace WHERE nspname ~ 'genesis'") == []


@contextmanager
def small_disk(path, size="256k"):
    """A file system of its own at `path`."""
    path.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", path], check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root, where it may mount, can make a disk that fills")
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


def fill(path):
    with (path / "filler").open("wb", buffering=0) as filler:
        try:
            while filler.write(b"\0" * 4096):
                pass
        except OSError:
            return


class TestFolders:
    """State and logs that cannot be written."""

    def test_the_disk_of_the_logs_is_full_at_the_start(self, here, database):
        with small_disk(here.home / "logs") as logs:
            fill(logs)
            here("setup").is_refused(2, "No space left", "GENESIS_HOME")
        assert rows(database, "SELECT 1 FROM pg_namespace WHERE nspname = 'genesis'") == []

    def test_the_disk_of_the_logs_fills_while_a_test_runs(self, here, monkeypatch):
        here("setup").done()
        with small_disk(here.home / "logs") as logs:
            original = extended_test.run_soak

            def run_soak(*arguments, **more):
                fill(logs)
                return original(*arguments, **more)

            monkeypatch.setattr(extended_test, "run_soak", run_soak)
            ended = here("test", "--simulate", *SHORT, "--json").done(0, 1)
            assert ended.document["criteria"]
            assert "cannot be written" in ended.err and "test --report" in ended.err
            assert ended.document["files"] == {}
        assert here("status", "--json").document["windows"]

    def test_the_disk_of_the_journal_is_full(self, here, server):
        here("setup").done()
        before = written_settings(server.dsn)
        with small_disk(here.home / "servers") as servers:
            fill(servers)
            ended = here("optimize", "--simulate", "--duration", "0.02", "--scale", "0.02").done(2, 4)
            assert "No space left" in ended.err
        assert written_settings(server.dsn) == before

    def test_a_home_that_is_read_only(self, here):
        with small_disk(here.home):
            subprocess.run(["mount", "-o", "remount,ro", here.home], check=True)
            here("setup").is_refused(2, str(here.home), "Read-only file system")

    def test_a_home_of_another_user(self, here):
        if os.geteuid() != 0:
            pytest.skip("only root can give a folder away")
        here.home.mkdir()
        os.chown(here.home, 65534, 65534)
        here("setup").is_refused(2, "65534", "GENESIS_HOME")

    def test_a_home_that_is_a_file(self, here):
        here.home.write_text("mine")
        here("setup").is_refused(2, str(here.home))
        assert here.home.read_text() == "mine"

    def test_an_embedded_server_that_another_run_uses(self, cli, folder, binaries, monkeypatch):
        monkeypatch.setenv("GENESIS_HOME", str(folder))
        with EmbeddedServer.start(folder / "embedded", binaries=binaries) as other:
            cli.classic("--mode", "setup").is_refused(4, "in use by another run", "GENESIS_HOME")
            cli("status").done()
            assert rows(other.dsn, "SELECT 1") == [(1,)]


class TestWithoutStatistics:
    """A server of which no response time can be seen."""

    def test_optimising_without_load_of_ours_says_what_is_missing(self, here, database):
        by_hand(database, "DROP EXTENSION IF EXISTS pg_stat_statements")
        here("setup").done()
        here("optimize", "--duration", "0.01").is_refused(3, "pg_stat_statements is not installed", "--simulate")


class TestOtherRuns:
    """One optimiser per server."""

    @pytest.mark.parametrize(
        "words", [("optimize",), ("optimize", "--simulate"), ("rollback",), ("uninstall",)], ids=named
    )
    def test_another_optimiser_is_at_work(self, here, database, words):
        here("setup").done()
        session = LastingConnection(ConnectionSettings.from_dsn(database), "settings")
        with session, optimizer_lock(session):
            here(*words).is_refused(4, "Another optimiser works on", "pg_terminate_backend")
            here("status").done()
        schemas = rows(database, "SELECT nspname FROM pg_namespace WHERE nspname ~ 'genesis'")
        assert schemas == [("genesis",)]


class TestDroppedWhileTesting:
    """A server that goes away while the soak runs."""

    @pytest.fixture
    def kill_in_the_first_window(self, own_server, monkeypatch):
        original = extended_test.run_soak

        def arrange(then):
            def run_soak(*arguments, **more):
                def on_interval(interval, share):
                    if own_server.is_running and not killed.is_set():
                        killed.set()
                        own_server.kill()
                        then()
                    tell(interval, share)

                tell, killed = more.pop("on_interval"), threading.Event()
                return original(*arguments, on_interval=on_interval, **more)

            monkeypatch.setattr(extended_test, "run_soak", run_soak)
            monkeypatch.setenv("GENESIS_WINDOW_SECONDS", "1")

        return arrange

    def test_for_good(self, cli, own_server, kill_in_the_first_window):
        cli.dsn = own_server.dsn
        cli("setup").done()
        before = written_settings(own_server.dsn)
        kill_in_the_first_window(lambda: None)
        ended = cli("test", "--simulate", "--json", *SHORT).done(1)
        assert ended.document["lost_windows_total"] > 0, "the outage counts against the server, to the end"
        assert list((cli.home / "logs").glob("test-*/minutes.csv")), "what was measured until then is kept"
        own_server.restart()
        assert written_settings(own_server.dsn) == before
        cli("status").done()

    def test_for_a_moment(self, cli, own_server, kill_in_the_first_window):
        cli.dsn = own_server.dsn
        cli("setup").done()
        kill_in_the_first_window(own_server.restart)
        # how many operations fail hangs on how fast the server is back: the criteria may be met or not
        ended = cli("test", "--simulate", "--json", *SHORT).done(0, 1)
        assert ended.document["lost_windows_total"] + ended.document["totals"]["failed_total"] > 0
        assert cli("status", "--json").document["windows"]


def test_ctrl_c_in_a_test_keeps_what_was_measured(here, monkeypatch):
    here("setup").done()
    original = extended_test.run_soak

    def run_soak(*arguments, **more):
        tell = more.pop("on_interval")

        def on_interval(interval, share):
            tell(interval, share)
            os.kill(os.getpid(), signal.SIGINT)

        return original(*arguments, on_interval=on_interval, **more)

    monkeypatch.setattr(extended_test, "run_soak", run_soak)
    monkeypatch.setenv("GENESIS_WINDOW_SECONDS", "1")
    here("test", "--simulate", *SHORT).is_refused(130, "Interrupted after", "report.html", "test --resume")
    assert list((here.home / "logs").glob("test-*/report.html"))


def test_a_message_cannot_play_with_the_terminal(cli):
    ended = cli.classic("--mode", "\x1b[2Jnonsense\nsecond\nthird").is_refused(2)
    assert "\x1b" not in ended.err


def test_a_password_in_a_dsn_is_never_told(cli):
    cli.dsn = "postgresql://nobody:sekret@127.0.0.1:1/x"
    for words in (("status",), ("status", "--debug"), ("status", "--json"), ("doctor",)):
        ended = cli(*words)
        assert ended.code == 3
        assert "sekret" not in ended.out + ended.err


def test_a_server_with_no_free_connection_is_told(cli, server, database):
    role = f"crowd_{os.getpid()}"
    by_hand(server.dsn, f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 0")
    try:
        cli.dsn = make_conninfo(database, user=role)
        cli("status").is_refused(3, "too many connections")
    finally:
        by_hand(server.dsn, f"DROP ROLE {role}")


def test_the_load_never_takes_the_last_connections(cli, own_server):
    own_server.restart({"max_connections": "12", "superuser_reserved_connections": "3"})
    cli.dsn = own_server.dsn
    cli("setup").done()
    with psycopg.connect(own_server.dsn):
        cli("test", "--simulate", *SHORT).done(0, 1)


class TestOutput:
    """Where standard output is not what the program would like."""

    @pytest.fixture
    def run(self, database, tmp_path):
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "POSTGRES_"))}

        def run(*words, **more):
            command = [sys.executable, str(ROOT / "run.py"), *words]
            return subprocess.run(
                command,
                env={**environ, "GENESIS_HOME": str(tmp_path / "home"), **more.pop("environ", {})},
                stderr=subprocess.PIPE,
                text=True,
                check=False,
                **more,
            )

        return run

    @pytest.mark.parametrize("words", [(), ("--json",)], ids=["tables", "json"])
    def test_a_full_device_is_said_in_two_lines(self, run, database, words):
        with Path("/dev/full").open("w") as full:
            ended = run("--mode", "setup", "--dsn", database, *words, stdout=full)
        assert ended.returncode == 2
        lines = [line for line in ended.stderr.splitlines() if "Schema genesis" not in line]
        assert len(lines) == 2, ended.stderr
        assert lines[0].startswith("The result cannot be written to standard output")
        assert rows(database, "SELECT 1 FROM pg_namespace WHERE nspname = 'genesis'") == [(1,)]

    def test_a_reader_that_has_seen_enough_is_no_error(self, run, database):
        reading, writing = os.pipe()
        os.close(reading)
        ended = run("--mode", "setup", "--dsn", database, stdout=writing)
        os.close(writing)
        assert (ended.returncode, ended.stderr) == (0, "")

    def test_a_terminal_that_knows_no_minus_sign_gets_another_one(self, run, database):
        ended = run(
            *("--mode", "optimize", "--dry-run", "--dsn", database),
            stdout=subprocess.PIPE,
            environ={"PYTHONIOENCODING": "ascii"},
        )
        assert ended.returncode == 0, ended.stderr


def test_a_library_that_is_missing_is_named_with_what_installs_it(tmp_path):
    (tmp_path / "optuna.py").write_text("import a_library_that_nobody_has\n")
    ended = subprocess.run(
        [sys.executable, ROOT / "run.py", "--mode", "setup"],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "GENESIS_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    first, second = ended.stderr.splitlines()
    assert "a_library_that_nobody_has is not installed" in first
    assert "pip install" in second
