"""The extended test on a real server, whose runner or whose server is killed."""

import os
import resource
import signal
import time
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from command_line import CommandLine, clean_environment, started

from ml_postgres_optimization.errors import AlreadyRunning, IntegrityViolated, TargetError, UsageError
from ml_postgres_optimization.soak.interval import EventKind, IntervalState
from ml_postgres_optimization.soak.journal import FILE, read_run
from ml_postgres_optimization.workload import SOAK_MIX, LoadGenerator, LoadPlan, create_tables, drop_tables
from ml_postgres_optimization.workload.accounting import Ledger, Recycling

SCALE = 0.005
PATIENCE_SECONDS = 60.0


def journal_in(home: Path) -> Path | None:
    return next(iter(home.glob(f"servers/*/soaks/*/{FILE}")), None)


def wait_for_intervals(home: Path, count: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        path = journal_in(home)
        if path and sum(interval.window is not None for interval in read_run(path.parent).intervals) >= count:
            return
        time.sleep(0.05)
    raise AssertionError("no interval was written in time")


def by_hand(dsn: str, statement: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement)


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.mark.long
def test_a_runner_that_is_killed(own_server, home, monkeypatch, capsys):
    clean_environment(monkeypatch, home)
    monkeypatch.setenv("GENESIS_WINDOW_SECONDS", "0.5")
    monkeypatch.setattr("command_line.NAMES_A_SERVER", ("PG", "POSTGRES_"))
    cli = CommandLine(capsys, home, own_server.dsn)
    cli("setup").done()
    words = ("--mode", "test", "--simulate", "--dsn", own_server.dsn, "--scale", str(SCALE), "--level", "BASIC")
    # 18 s: long enough for a runner to start twice
    first = started(*words, "--duration", "0.005", home=home)
    wait_for_intervals(home, 2)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    assert "killed" in cli("test", "--list").done().out
    (told,) = cli("status", "--json").done().document["extended_tests"]
    assert told["status"] == "killed"
    kept = list(read_run(journal_in(home).parent).intervals)

    resumed = cli("test", "--resume", "--simulate", "--scale", SCALE, "--json").done(0, 1)
    found = [*read_run(journal_in(home).parent).intervals]
    assert found[: len(kept)] == kept, "what was recorded is what it was"
    assert [interval.number for interval in found] == [*range(36)]
    states = [interval.state for interval in found]
    assert states.count(IntervalState.LOST) == 1
    assert states[len(kept)] is IntervalState.LOST
    assert {interval.epoch for interval in found if interval.window} == {1, 2}
    operations = sum(interval.window.operations_total for interval in found if interval.window)
    assert resumed.document["totals"]["response"]["operations_total"] == operations, "none is counted twice"
    assert all(interval.resources["client.rss_bytes"] > 1e7 for interval in found if interval.window)
    events = [event.text for interval in found for event in interval.events if event.kind is EventKind.INTEGRITY]
    assert any("acknowledged" in text for text in events)
    cli("test", "--resume").is_refused(2, "--simulate")
    cli("test", "--resume", "--simulate").is_refused(2, "no run to resume")


@pytest.mark.long
def test_a_runner_that_is_held_up_and_whose_disk_is_full(own_server, home, monkeypatch, capsys):
    clean_environment(monkeypatch, home)
    monkeypatch.setenv("GENESIS_WINDOW_SECONDS", "0.5")
    monkeypatch.setattr("command_line.NAMES_A_SERVER", ("PG", "POSTGRES_"))
    cli = CommandLine(capsys, home, own_server.dsn)
    cli("setup").done()
    words = ("--mode", "test", "--simulate", "--dsn", own_server.dsn, "--scale", str(SCALE), "--level", "BASIC")
    runner = started(*words, "--duration", "0.008", home=home)
    wait_for_intervals(home, 2)
    os.kill(runner.pid, signal.SIGSTOP)
    time.sleep(3.0)
    os.kill(runner.pid, signal.SIGCONT)
    folder = journal_in(home).parent
    unlimited = resource.prlimit(runner.pid, resource.RLIMIT_FSIZE)

    def fill_its_disk() -> int:
        before = len([*read_run(folder).intervals])
        # what every process is told that has used its room up; the file it says it in is smaller
        full = ((folder / FILE).stat().st_size + 100, unlimited[1])
        resource.prlimit(runner.pid, resource.RLIMIT_FSIZE, full)
        time.sleep(3.0)
        return before

    wait_for_intervals(home, 4)
    before = fill_its_disk()
    resource.prlimit(runner.pid, resource.RLIMIT_FSIZE, unlimited)
    wait_for_intervals(home, before + 3)
    found = [*read_run(folder).intervals]
    states = [interval.state for interval in found]
    assert {*states} == {IntervalState.MEASURED, IntervalState.DEGRADED}, "nobody was away, and nothing is lost"
    assert sum(interval.counted_in is not None for interval in found) >= 4
    events = [event.text for interval in found for event in interval.events]
    assert any("held up" in text for text in events)
    assert any("File too large" in text for text in events) and any("complete again" in text for text in events)

    kept = fill_its_disk()
    os.kill(runner.pid, signal.SIGKILL)
    runner.communicate()
    resumed = cli("test", "--resume", "--simulate", "--scale", SCALE, "--json").done(0, 1)
    found = [*read_run(folder).intervals]
    lost = [interval.number for interval in found if interval.state is IntervalState.LOST]
    assert lost == [*range(lost[0], lost[0] + len(lost))] and lost[0] <= kept + 1 and len(lost) >= 5
    away = [interval.number for interval in found if interval.state is IntervalState.CLIENT_DOWN]
    assert away and away[0] == lost[-1] + 1
    finding = next(one for one in resumed.document["criteria"] if one["name"] == "integrity")
    assert finding["outcome"] == "passed"
    assert any(f"interval {lost[0]:,} to {lost[-1]:,}, is lost" in one["text"] for one in resumed.document["events"])


@pytest.mark.long
def test_a_run_whose_time_is_over_is_ended_without_load(own_server, home, monkeypatch, capsys):
    clean_environment(monkeypatch, home)
    monkeypatch.setenv("GENESIS_WINDOW_SECONDS", "0.5")
    monkeypatch.setattr("command_line.NAMES_A_SERVER", ("PG", "POSTGRES_"))
    cli = CommandLine(capsys, home, own_server.dsn)
    cli("setup").done()
    words = ("--mode", "test", "--simulate", "--dsn", own_server.dsn, "--scale", str(SCALE), "--level", "BASIC")
    first = started(*words, "--duration", "0.001", home=home)
    wait_for_intervals(home, 2)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    kept = list(read_run(journal_in(home).parent).intervals)
    time.sleep(4.0)  # the run is over after 3.6 s by the clock of the machine
    with psycopg.connect(own_server.dsn, autocommit=True) as connection:
        count = "SELECT count(*) FROM genesis_load.operations"
        before = connection.execute(count).fetchone()
        resumed = cli("test", "--resume", "--simulate", "--scale", SCALE, "--json").done(0, 1)
        assert connection.execute(count).fetchone() == before, "nobody asked for more"
    found = list(read_run(journal_in(home).parent).intervals)
    away = [interval.state for interval in found[len(kept) :]]
    assert found[: len(kept)] == kept
    assert away == [IntervalState.LOST, *[IntervalState.CLIENT_DOWN] * (len(away) - 1)] and len(away) > 1
    assert resumed.document["covered_seconds"] == resumed.document["planned_seconds"]
    finding = next(one for one in resumed.document["criteria"] if one["name"] == "integrity")
    assert finding["outcome"] == "passed"
    assert "finished" in cli("test", "--list").done().out


@pytest.fixture
def tables(database):
    create_tables(database, SCALE)
    return database


def test_the_ledger_holds_what_was_acknowledged_and_no_more(tables):
    with Ledger(tables, "run") as ledger:
        plan = LoadPlan(SOAK_MIX, rate_per_second=400.0, connections=4, processes=1, seed=3)
        epoch = ledger.take(0, is_new=True)
        with LoadGenerator(tables, replace(plan, ledger=("run", epoch))) as load:
            time.sleep(1.0)
        batches = load.samples()
        written = sum(int((batch.kind_index[batch.sqlstate == b""] != 0).sum()) for batch in batches)
        assert written > 50
        assert ledger.check(written, 0) == written
        ledger.check_balance()
        with pytest.raises(IntegrityViolated, match="must hold"):
            ledger.check(written + 1)
        with pytest.raises(IntegrityViolated, match="must hold"):
            ledger.check(written - 2, 1)
        with Ledger(tables, "run") as second, pytest.raises(AlreadyRunning, match="Another runner is at run"):
            second.take(epoch, is_new=False)
        by_hand(tables, "UPDATE genesis_load.accounts SET balance = balance + 1 WHERE account_id = 7")
        with pytest.raises(IntegrityViolated, match="add up"):
            ledger.check_balance()
    # a session that is left to the garbage collector warns in whatever test comes after
    with Ledger(tables, "another") as another, pytest.raises(UsageError, match="do not know"):
        another.take(1, is_new=False)


def test_a_runner_that_was_overtaken_changes_nothing(tables):
    first, second = Ledger(tables, "run"), Ledger(tables, "run")
    epoch = first.take(0, is_new=True)
    with LoadGenerator(tables, LoadPlan(SOAK_MIX, 200.0, 2, processes=1, ledger=("run", epoch))) as load:
        first.close()  # its session is lost; the load does not know it
        time.sleep(0.3)
        assert second.take(epoch, is_new=False) == epoch + 1
        with psycopg.connect(tables, autocommit=True) as connection:
            count = "SELECT count(*) FROM genesis_load.operations"
            before = connection.execute(count).fetchone()
            booked = second.check(0, epoch=epoch)
            time.sleep(0.5)
            assert connection.execute(count).fetchone() == before
        assert second.check(0, epoch=epoch) == booked > 0
        assert load.counters.due_total > 0
    second.close()
    with pytest.raises(AlreadyRunning, match="taken over"):
        first.check(0)
    first.close()


def test_tables_are_kept_to_a_size(tables):
    with Ledger(tables, "run") as ledger:
        ledger.take(0, is_new=True)
        recycling = Recycling(ledger, SCALE)
        assert recycling.run() == 0
        by_hand(
            tables,
            "INSERT INTO genesis_load.event_log (account_id, other_account_id, amount, payload) "
            "SELECT 1, 2, 3, 'x' FROM generate_series(1, 1000)",
        )
        # 250 were there, and twice that is kept
        assert recycling.run() == 750
        assert recycling.run() == 0


def test_nobody_makes_the_tables_of_a_test_at_work_anew(tables):
    with Ledger(tables, "run") as ledger:
        ledger.take(0, is_new=True)
        for make_anew in (lambda: create_tables(tables, 2 * SCALE), lambda: drop_tables(tables)):
            with pytest.raises(AlreadyRunning, match="at work on the tables"):
                make_anew()
        ledger.check(0)
    create_tables(tables, 2 * SCALE)


def test_a_lost_session_that_the_server_has_not_missed_yet_ends_no_run(tables):
    with Ledger(tables, "run") as ledger, psycopg.connect(tables, autocommit=True) as still_there:
        ledger.take(0, is_new=True)
        ended = ledger.run(lambda own: own.execute("SELECT pg_backend_pid()").fetchone(), "ask")
        still_there.execute("SELECT pg_terminate_backend(%s)", ended)
        still_there.execute("SELECT pg_advisory_lock(1734700645, hashtext('run'))")
        with pytest.raises(TargetError, match="still held") as told:
            ledger.check(0)
        assert not isinstance(told.value, AlreadyRunning)
        still_there.execute("SELECT pg_advisory_unlock_all()")
        assert ledger.check(0) == 0
