"""Whoever dies, and whenever: the configuration from before the trial comes back by itself.

All moments with all victims: ``benchmarks/faults.py``.
"""

import json
import re
import signal
import time
from pathlib import Path

import psycopg
import pytest
from protected_trial import (
    ROLE_SETTINGS,
    STOCK,
    TRIED,
    by_hand,
    comes_back,
    is_gone,
    make_role,
    protected_trial,
    role_settings,
    seen,
    until,
    written,
)
from test_guard import guarded

from ml_postgres_optimization.safety.journal import read_journal
from ml_postgres_optimization.safety.undo import undo_unfinished
from ml_postgres_optimization.target.embedded import EmbeddedServer
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings, LastingConnection
from ml_postgres_optimization.target.postgres.lock import optimizer_lock
from ml_postgres_optimization.target.postgres.queries import read_query
from ml_postgres_optimization.workload.faults import FaultProxy

LEASE_SECONDS = 1.5
END_OUR_SESSION = (
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
    "WHERE application_name ~ '^genesis-pg: settings [0-9a-f]{16}( |$)'"
)


@pytest.fixture(scope="module")
def watched_server(binaries, module_folder, session_folder):
    with EmbeddedServer.start(
        module_folder,
        binaries=binaries,
        settings={"fsync": "off"},
        system_state=session_folder / "system",
    ) as server:
        if binaries.has_library("dblink"):
            by_hand(server.dsn, "CREATE EXTENSION dblink")
        make_role(server.dsn)
        yield server


@pytest.fixture
def dsn(watched_server):
    yield watched_server.dsn
    by_hand(watched_server.dsn, "ALTER SYSTEM RESET ALL", "SELECT pg_reload_conf()")


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "journal-of-the-server"


@pytest.fixture(params=["guard", "watchdog"])
def survivor(request, binaries):
    if request.param == "guard" and not binaries.has_library("dblink"):
        pytest.skip("these binaries come without dblink")
    return request.param


@pytest.mark.parametrize("moment", ["record 2", "write 2", "reload 1", "applied", "restore 1", "record 6"])
def test_when_the_tuner_is_killed_somebody_puts_it_back(dsn, directory, watched_server, moment):
    with protected_trial(dsn, directory, moment, LEASE_SECONDS) as trial:
        trial.kill("tuner")
        comes_back(watched_server, 1.5)
        until(lambda: is_gone(trial.watchdog))
    assert not read_journal(directory).unfinished


@pytest.mark.parametrize("moment", ["write 2", "role/applied"])
def test_one_of_them_suffices(dsn, directory, watched_server, survivor, moment):
    with protected_trial(dsn, directory, moment, LEASE_SECONDS) as trial:
        if "role" in moment:
            assert len(role_settings(dsn)) == 2
        trial.kill("tuner", *{"guard", "watchdog"} - {survivor})
        comes_back(watched_server, LEASE_SECONDS + 1)
        # of all that was tried the setting of the server is put back last
        assert role_settings(dsn) == ROLE_SETTINGS


def test_after_all_of_them_the_next_start_puts_it_back(dsn, directory, watched_server, binaries):
    if not binaries.has_library("dblink"):
        pytest.skip("these binaries come without dblink")
    with protected_trial(dsn, directory, "applied", LEASE_SECONDS) as trial:
        trial.kill("guard", "watchdog", "tuner")
        assert seen(dsn, *TRIED) == TRIED
    with guarded(dsn, directory) as guard:
        undo_unfinished(guard.actuator, guard.journal)
    comes_back(watched_server, 1.0)


@pytest.mark.parametrize("moment", ["write 1", "applied"])
def test_a_tuner_that_is_stopped_for_longer_than_its_lease_changes_nothing_afterwards(
    dsn, directory, watched_server, survivor, moment
):
    with protected_trial(dsn, directory, moment, LEASE_SECONDS) as trial:
        trial.kill(*{"guard", "watchdog"} - {survivor})
        trial.process.send_signal(signal.SIGSTOP)
        comes_back(watched_server, LEASE_SECONDS + 1)
        trial.process.send_signal(signal.SIGCONT)
        said = trial.go_on()
        if moment == "write 1":
            assert json.loads(said)["error"] == "ServerUnreachable", "the rest was not written"
        assert (seen(dsn, *STOCK), written(watched_server)) == (STOCK, [])
    assert not read_journal(directory).unfinished


def test_a_session_that_a_stopped_tuner_has_opened_anew_is_ended_too(dsn, directory, watched_server):
    """It holds the optimiser's lock, and nobody could be told of it yet."""
    with protected_trial(dsn, directory, "applied,restore 1", LEASE_SECONDS) as trial:
        trial.kill("guard")
        by_hand(dsn, END_OUR_SESSION)
        trial.go_on_until_the_next_moment()
        trial.process.send_signal(signal.SIGSTOP)
        comes_back(watched_server, LEASE_SECONDS + 1)
        trial.process.send_signal(signal.SIGCONT)
        trial.go_on()
        assert (seen(dsn, *STOCK), written(watched_server)) == (STOCK, [])
    assert not read_journal(directory).unfinished


def test_nobody_else_s_session_is_ended(dsn, directory, watched_server):
    """Those that stand by end what goes by the name of their own run, even where another has the lock by now."""
    with (
        LastingConnection(ConnectionSettings.from_dsn(dsn), "settings 1234") as another,
        protected_trial(dsn, directory, "applied", LEASE_SECONDS) as trial,
    ):
        by_hand(dsn, END_OUR_SESSION)
        with optimizer_lock(another, patience_seconds=5.0) as lock:
            trial.kill("tuner")
            until(lambda: "is gone" in (directory / "watchdog.log").read_text() or not is_gone(trial.watchdog))
            assert lock.held()
        comes_back(watched_server, LEASE_SECONDS + 1)


def test_a_stopped_tuner_is_noticed_where_the_server_keeps_no_statistics_of_sessions(
    dsn, directory, watched_server, binaries
):
    if not binaries.has_library("dblink"):
        pytest.skip("these binaries come without dblink")
    by_hand(dsn, "ALTER ROLE postgres SET track_activities = off")
    try:
        with protected_trial(dsn, directory, "applied", LEASE_SECONDS) as trial:
            trial.kill("watchdog")
            time.sleep(LEASE_SECONDS + 0.5)
            assert seen(dsn, *TRIED) == TRIED, "it is heard of"
            trial.process.send_signal(signal.SIGSTOP)
            comes_back(watched_server, LEASE_SECONDS + 1)
    finally:
        by_hand(dsn, "ALTER ROLE postgres RESET track_activities")


def test_no_clock_that_may_be_set_says_how_long_nobody_was_heard_of():
    assert not re.search(r"clock_timestamp|now\(\)|current_timestamp", read_query("guard/stand_by"))


@pytest.fixture
def acting_role(dsn, binaries):
    """The DSN of a role that acts as another, which may not see the sessions of the first."""
    rights = [
        "GRANT ALTER SYSTEM ON PARAMETER work_mem, jit, random_page_cost TO acting",
        "GRANT EXECUTE ON FUNCTION pg_reload_conf(), pg_show_all_file_settings() TO acting",
        "GRANT SELECT ON pg_file_settings TO acting",
        "GRANT pg_read_all_settings TO acting",
    ]
    if binaries.has_library("dblink"):
        rights.append("GRANT EXECUTE ON FUNCTION dblink_connect_u(text, text) TO acting")
    by_hand(dsn, "CREATE ROLE acting", "CREATE ROLE tuner LOGIN IN ROLE acting", "ALTER ROLE tuner SET role = acting")
    by_hand(dsn, *rights)
    yield f"{dsn} user=tuner"
    by_hand(dsn, "DROP OWNED BY acting", "DROP ROLE tuner, acting")


@pytest.mark.pg(">= 15")
def test_a_role_that_acts_as_another_is_watched_over_too(dsn, acting_role, directory, watched_server, survivor):
    with protected_trial(acting_role, directory, "applied", LEASE_SECONDS) as trial:
        trial.dsn = dsn
        assert seen(acting_role, *TRIED) == TRIED
        trial.kill(*{"guard", "watchdog"} - {survivor})
        trial.process.send_signal(signal.SIGSTOP)
        comes_back(watched_server, LEASE_SECONDS + 1)


@pytest.mark.parametrize("victim", ["watchdog", "guard"])
@pytest.mark.parametrize("moment", ["record 2", "applied"])
def test_who_stands_by_and_is_lost_is_replaced_and_the_trial_goes_on(
    dsn, directory, watched_server, binaries, victim, moment
):
    if victim == "guard" and not binaries.has_library("dblink"):
        pytest.skip("these binaries come without dblink")
    with protected_trial(dsn, directory, moment, LEASE_SECONDS) as trial:
        trial.kill(victim)
        assert trial.go_on() == ""
        assert trial.process.returncode == 0
        comes_back(watched_server, 0.5)
    assert not read_journal(directory).unfinished


@pytest.mark.parametrize("fault", ["cut", "fall_silent"])
def test_a_line_that_is_cut_is_a_tuner_that_is_silent(dsn, directory, watched_server, binaries, fault):
    """From outside nothing can be done then; the session inside of the server needs no line."""
    if not binaries.has_library("dblink"):
        pytest.skip("these binaries come without dblink")
    with (
        FaultProxy(dsn) as line,
        protected_trial(f"{dsn} host=127.0.0.1 port={line.port}", directory, "applied", LEASE_SECONDS) as trial,
    ):
        getattr(line, fault)()
        comes_back(watched_server, LEASE_SECONDS + 1)
        line.heal()
        trial.go_on()
        assert (seen(dsn, *STOCK), written(watched_server)) == (STOCK, [])
    assert not read_journal(directory).unfinished


@pytest.mark.parametrize("moment", ["confirm/record 5", "confirm/sole 3"])
def test_a_line_that_is_cut_while_it_is_confirmed_leaves_somebody_who_stands_by(
    dsn, directory, watched_server, moment
):
    """The session inside was sent home; nobody outside can do anything until the line heals."""
    with (
        FaultProxy(dsn) as line,
        protected_trial(f"{dsn} host=127.0.0.1 port={line.port}", directory, moment, LEASE_SECONDS) as trial,
    ):
        line.cut()
        trial.process.stdin.write("\n")
        trial.process.stdin.flush()
        trial.process.wait(30)
        assert seen(dsn, *STOCK) == TRIED
        line.heal()
        comes_back(watched_server, LEASE_SECONDS + 1)
        until(lambda: not read_journal(directory).unfinished)


def test_somebody_else_s_change_survives_all_of_them(dsn, directory, watched_server):
    with protected_trial(dsn, directory, "applied", LEASE_SECONDS) as trial:
        by_hand(dsn, "ALTER SYSTEM SET work_mem = '32MB'", "SELECT pg_reload_conf()")
        trial.kill("tuner")
        until(lambda: is_gone(trial.watchdog))
        until(lambda: seen(dsn, *STOCK) == {**STOCK, "work_mem": "32MB"})
        assert written(watched_server) == ["work_mem = '32MB'"]


@pytest.mark.parametrize("moment", ["write 2", "applied"])
def test_a_server_that_crashes_together_with_the_tuner_comes_back_as_it_was(
    binaries, session_folder, tmp_path, directory, moment
):
    with (
        EmbeddedServer.start(
            tmp_path / "crashing", binaries=binaries, system_state=session_folder / "system"
        ) as server,
        protected_trial(server.dsn, directory, moment, LEASE_SECONDS) as trial,
    ):
        server.kill()
        trial.kill("tuner")
        time.sleep(0.5)
        server.restart()
        comes_back(server, LEASE_SECONDS + 1)
        until(lambda: is_gone(trial.watchdog))
    assert not read_journal(directory).unfinished


def test_a_tuner_that_ends_while_the_server_is_down_leaves_it_to_the_watchdog(
    binaries, session_folder, tmp_path, directory
):
    """As where a candidate takes too much memory, and PostgreSQL is killed for it."""
    with (
        EmbeddedServer.start(
            tmp_path / "crashing", binaries=binaries, system_state=session_folder / "system"
        ) as server,
        protected_trial(server.dsn, directory, "applied", LEASE_SECONDS) as trial,
    ):
        server.kill()
        assert json.loads(trial.go_on())["error"] == "ServerUnreachable"
        server.restart()
        comes_back(server, LEASE_SECONDS + 1)
        until(lambda: is_gone(trial.watchdog))
    assert not read_journal(directory).unfinished


def test_at_an_orderly_end_nobody_is_left(dsn, directory, watched_server):
    with protected_trial(dsn, directory, "applied", LEASE_SECONDS) as trial:
        trial.go_on()
        assert is_gone(trial.watchdog)
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'genesis-pg%'"
        until(lambda: one(dsn, query) == 0)


def one(dsn, query):
    with psycopg.connect(dsn) as connection:
        return connection.execute(query).fetchone()[0]


def test_the_guard_session_holds_no_snapshot_for_long(dsn, directory, binaries):
    """Vacuum is never held up by those who stand by."""
    if not binaries.has_library("dblink"):
        pytest.skip("these binaries come without dblink")
    oldest = "SELECT age(backend_xmin) FROM pg_stat_activity WHERE pid = %s"
    with (
        protected_trial(dsn, directory, "applied", LEASE_SECONDS) as trial,
        psycopg.connect(dsn, autocommit=True) as connection,
    ):
        for _ in range(50):
            connection.execute("SELECT pg_current_xact_id()")
        until(lambda: (connection.execute(oldest, [trial.guard]).fetchone()[0] or 0) <= 1, seconds=2.0)


def test_no_password_is_in_the_command_line_of_the_watchdog(dsn, directory):
    with protected_trial(f"{dsn} password=sesame-42", directory, "applied", LEASE_SECONDS) as trial:
        assert "sesame-42" not in Path(f"/proc/{trial.watchdog}/cmdline").read_text()


def test_somebody_else_s_change_between_our_writes_survives(dsn, directory, watched_server):
    """Of a knob that was looked at a moment ago, and is not written yet."""
    with protected_trial(dsn, directory, "write 1", LEASE_SECONDS) as trial:
        by_hand(dsn, "ALTER SYSTEM SET work_mem = '32MB'", "SELECT pg_reload_conf()")
        assert json.loads(trial.go_on())["error"] == "ForeignChange"
        until(lambda: seen(dsn, *STOCK) == {**STOCK, "work_mem": "32MB"})
        assert written(watched_server) == ["work_mem = '32MB'"]
    assert not read_journal(directory).unfinished
