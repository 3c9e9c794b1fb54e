"""The optimiser beside an extended test, and what is marked of it."""

import os
import signal
import subprocess
import sys
import time
from datetime import timedelta

import psutil
import pytest
from command_line import CommandLine, by_hand, clean_environment

from ml_postgres_optimization.interfaces.commands.soaking.beside import optimizer
from ml_postgres_optimization.interfaces.commands.soaking.beside.marks import ON_TRIAL, ConfigurationMarks
from ml_postgres_optimization.interfaces.commands.soaking.beside.optimizer import OptimizerBeside, results_in
from ml_postgres_optimization.interfaces.home import resolve_home
from ml_postgres_optimization.interfaces.reporter import Silence
from ml_postgres_optimization.interfaces.session import open_session
from ml_postgres_optimization.interfaces.settings import load_settings
from ml_postgres_optimization.interfaces.workbench.ground import survey
from ml_postgres_optimization.knobs.configuration import Change
from ml_postgres_optimization.soak.interval import EventKind
from ml_postgres_optimization.soak.journal import read_run
from ml_postgres_optimization.telemetry import VirtualClock

PATIENCE_SECONDS = 90.0


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path, own_server):
    clean_environment(monkeypatch, tmp_path / "home")
    cli = CommandLine(capsys, tmp_path / "home", own_server.dsn)
    cli("setup").done()
    return cli


def opened(cli):
    return open_session(load_settings({"dsn": cli.dsn}), resolve_home(os.environ, None), {}, Silence())


def held(session, guard, trial_id, *, keeps, marks, **values):
    """Hold a trial as the optimiser does; return what the marks say of what is in force meanwhile."""
    before = survey(session).initial
    with guard.trial(Change(before, before.replaced(values)), trial_id) as trial:
        trial.apply()
        during = marks.configuration_id()
        if keeps:
            trial.confirm()
    return during


def texts(marks):
    return [event.text for event in marks.events()]


def test_trials_and_what_is_in_force_are_marked(cli):
    with opened(cli) as session, opened(cli) as other:
        known = []
        with other.sole_optimizer() as journal:
            guard = survey(other).guard(journal)
            earlier = session.clock.now()
            with guard.trial(_change(other, random_page_cost=3.5), "20260101T000000"):
                pass
            marks = ConfigurationMarks(session, lambda: survey(session).initial, known.append, session.clock.now())
            first = marks.configuration_id()
            assert first == known[0].id and not marks.events(), "what was before is not told"
            assert held(other, guard, "20260102T000000", keeps=False, marks=marks, random_page_cost=1.1) == ON_TRIAL
            assert marks.configuration_id() == first
            began, ended = marks.events()
            assert began.text == "Trial of random_page_cost: 4 → 1.1 began." and began.until is None
            assert ended.text == "Trial of random_page_cost: 4 → 1.1: put back."
            assert began.at == ended.at <= ended.until <= session.clock.now()
            assert {began.kind, ended.kind} == {EventKind.CONFIGURATION} and ended.at - earlier < timedelta(minutes=5)
            held(other, guard, "20260103T000000-prevention", keeps=True, marks=marks, work_mem=8192)
            assert marks.configuration_id() == known[-1].id != first
            assert texts(marks) == [
                "Prevention of work_mem: 4MB → 8MB began.",
                "Prevention of work_mem: 4MB → 8MB: kept.",
                "In force now: work_mem: 4MB → 8MB.",
            ]
        by_hand(cli.dsn, "ALTER SYSTEM SET work_mem = '16MB'", "SELECT pg_reload_conf()")
        _wait_until(lambda: marks.configuration_id() not in {first, known[1].id})
        assert texts(marks) == ["In force now: work_mem: 8MB → 16MB."], "somebody else's change is seen, too"
        assert known[-1]["work_mem"] == 16384


def _change(session, **values):
    before = survey(session).initial
    return Change(before, before.replaced(values))


def _wait_until(condition):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)


FAILS = 'import json, sys; print(json.dumps({"error": {"kind": sys.argv[1], "what": "It failed."}})); sys.exit(3)'
WAITS = "import sys; sys.stdin.read()"
STAYS = "import time; time.sleep(600)"


def test_it_is_begun_again_after_an_error_and_ends_with_the_test(cli, monkeypatch, tmp_path):
    clock, left = VirtualClock(), [3600.0]
    folder = tmp_path / "run"
    with opened(cli) as session:
        beside = OptimizerBeside(session, folder, 1, lambda: left[0], clock=clock)
        (event,) = _heard(beside)
        assert "cannot be begun: No such file" in event.text, "no folder, no room: the test goes on"
        folder.mkdir()
        monkeypatch.setattr(optimizer, "_PROGRAM", FAILS.replace("sys.argv[1]", "'ServerUnreachable'"))
        assert not beside.events(), "it waits"
        clock.sleep(31.0)
        (event,) = _heard(beside)
        assert event.text == "There is no optimiser beside the test: It failed. It is begun again."
        clock.sleep(61.0)
        monkeypatch.setattr(optimizer, "_PROGRAM", WAITS)
        beside.events()
        left[0] = 10.0
        process = beside._running.process
        beside.events()
        assert process.wait(PATIENCE_SECONDS) == 0, "it is let go before the test is over"
        beside.close()

        monkeypatch.setattr(optimizer, "_STOP_SECONDS", 0.2)
        monkeypatch.setattr(optimizer, "_PROGRAM", STAYS)
        left[0] = 3600.0
        with OptimizerBeside(session, folder, 2, lambda: left[0], clock=clock) as second:
            second.events()
            stays = second._running.process
        assert stays.poll() is not None, "it is ended all the same"
        monkeypatch.setattr(optimizer, "_PROGRAM", FAILS.replace("sys.argv[1]", "'PrivilegeMissing'"))
        with OptimizerBeside(session, folder, 3, lambda: left[0], clock=clock) as third:
            (event,) = _heard(third)
        assert event.text.endswith("It is not begun again.")
        assert results_in(folder) == []


def _heard(beside):
    told = []
    _wait_until(lambda: told.extend(beside.events()) or told)
    return told


def test_what_cannot_be_optimised_is_refused_before_the_load(cli, monkeypatch):
    words = ("test", "--simulate", "--optimize", "--dry-run")
    cli(*words, "--duration", "0.01").is_refused(2, "36 s", "leave --optimize away")
    monkeypatch.setenv("GENESIS_OBJECTIVE", "p99")
    cli(*words, "--duration", "1").is_refused(2, "p99")
    monkeypatch.delenv("GENESIS_OBJECTIVE")
    monkeypatch.setenv("GENESIS_ACTION", "advise")
    cli(*words, "--duration", "1").is_refused(2, "GENESIS_ACTION")
    cli("test", "--optimize", "--resume").is_refused(2, "--optimize", "for a run that begins")


@pytest.mark.long
def test_it_works_beside_the_test_and_ends_with_a_runner_that_is_killed(cli):
    by_hand(cli.dsn, "CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    short = ("--simulate", "--scale", "0.02", "--level", "BASIC")
    words = ("test", *short, "--duration", "0.07", "--optimize", "--detach", "--dsn", cli.dsn)
    # in a process of its own: this one is no parent of what goes on
    subprocess.run([sys.executable, "-m", "ml_postgres_optimization.interfaces.cli", *words], check=True)
    folder = next(cli.home.glob("servers/*/soaks/*/"))
    _wait_until(lambda: _beside(folder))
    (optimizer,) = _beside(folder)
    assert not any(cli.dsn in word for word in optimizer.cmdline()), "no server on the command line"
    _wait_until(lambda: "watched" in (folder / "optimizer-1-1.log").read_text())
    runner = optimizer.parent()
    os.kill(runner.pid, signal.SIGKILL)
    _wait_until(lambda: not optimizer.is_running() or optimizer.status() == psutil.STATUS_ZOMBIE)

    resumed = cli("test", "--resume", "--simulate", "--json").done(0, 1)
    (result,) = resumed.document["optimizers"]
    assert result["trials"], "two and a half minutes suffice for one"
    events = [event for interval in read_run(folder).intervals for event in interval.events]
    marked = [event for event in events if event.kind is EventKind.CONFIGURATION and event.until]
    assert [event.text for event in marked if event.text.startswith("Trial of")]
    ids = {interval.window.configuration_id for interval in read_run(folder).intervals if interval.window}
    assert ON_TRIAL in ids and len(ids) >= 2


def _beside(folder):
    """Return the optimisers that work beside the run in `folder`."""
    name = str(folder / "optimizer-")
    found = []
    for process in psutil.process_iter():
        try:
            if any(file.path.startswith(name) for file in process.open_files()) and process.pid != os.getpid():
                found.append(process)
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
    return found
