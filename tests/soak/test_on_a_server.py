"""The soak on a real server that is dead at the end, and with a client process that dies."""

import json
import os
import signal
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from ml_postgres_optimization.errors import IntegrityViolated
from ml_postgres_optimization.interfaces.commands.extended_test import _take_over
from ml_postgres_optimization.interfaces.commands.soaking.accounts import Accounts
from ml_postgres_optimization.interfaces.commands.soaking.reports import limits_of
from ml_postgres_optimization.interfaces.home import Home
from ml_postgres_optimization.interfaces.settings import load_settings
from ml_postgres_optimization.soak.figures.fold import fold
from ml_postgres_optimization.soak.figures.outline import RunOutline
from ml_postgres_optimization.soak.interval import EventKind, Interval, IntervalState
from ml_postgres_optimization.soak.journal import (
    Begun,
    ClockMark,
    Ending,
    Measured,
    RunDescription,
    RunJournal,
    Totals,
    read_run,
    runs_in,
)
from ml_postgres_optimization.soak.judging.limits import Limits
from ml_postgres_optimization.soak.judging.verdict import judge
from ml_postgres_optimization.soak.runner import run_soak
from ml_postgres_optimization.soak.running import Course, Timeline, Watch, nobody_watches
from ml_postgres_optimization.target.postgres.connection import resolve_connection
from ml_postgres_optimization.target.postgres.server import PostgresTarget
from ml_postgres_optimization.telemetry import Recorder, SystemClock
from ml_postgres_optimization.workload import SOAK_MIX, LoadGenerator, LoadPlan, create_tables
from ml_postgres_optimization.workload.accounting import Ledger
from ml_postgres_optimization.workload.faults import hold_table_lock

RATE = 200.0


def test_a_server_that_hangs_at_the_end_does_not_pass(database, tmp_path):
    create_tables(database, 0.005)
    plan = LoadPlan(SOAK_MIX, rate_per_second=RATE, connections=4, processes=1, seed=3, drain_seconds=0.3)
    clock = SystemClock()
    lock = threading.Thread(target=hold_table_lock, args=(database, 4.0))
    with (
        PostgresTarget.open(resolve_connection(database, {})) as target,
        LoadGenerator(database, plan) as load,
    ):
        recorder = Recorder(target, clock, samples=load.samples)

        def hang(_interval, _share):
            if not lock.ident:
                lock.start()

        began = time.monotonic()
        description = RunDescription("run", "1", "db", "here", "17", clock.now(), 3.0, 1.0, 3)
        with RunJournal(tmp_path / "run", description) as journal:
            course = Course(
                journal, recorder, Timeline(clock, description), clock, watch=nobody_watches("stock"), load=load
            )
            result = run_soak(journal, course, on_interval=hang)
        assert time.monotonic() - began < 4.0, "the table was locked until after the end"
    lock.join()
    counters = load.counters
    assert counters.due_total > 2.0 * RATE
    assert result.whole is not None
    assert result.whole.due_total == counters.due_total
    assert result.whole.operations_total == counters.succeeded_total + counters.failed_total
    assert result.whole.skipped_total == counters.skipped_total > 1.0 * RATE
    # of three seconds only the first was answered
    outline = RunOutline("run", description.started_at, 1.0, 3.0)
    verdict = judge(fold(outline, read_run(tmp_path / "run").intervals), Limits())
    assert verdict.findings[0].found_value == counters.succeeded_total / counters.due_total < 0.7
    assert verdict.exit_code == 1
    assert result.clients_died_total == 0
    assert 0.0 < result.client_cpu_ratio < 1.5


def test_what_a_client_process_had_not_reported_is_no_violation(database, tmp_path):
    create_tables(database, 0.005)
    clock = SystemClock()
    with PostgresTarget.open(resolve_connection(database, {})) as target, Ledger(database, "run") as ledger:
        epoch = ledger.take(0, is_new=True)
        accounts = Accounts(SimpleNamespace(log=None), ledger, 0.005)
        plan = LoadPlan(SOAK_MIX, 800.0, 4, processes=1, seed=3, ledger=("run", epoch))
        watch = Watch(lambda: "stock", review=accounts.review, settle=accounts.settle, reads=SOAK_MIX.read_only)

        def kill(interval, _share):
            if interval.number == 0:
                # it reports every 0.2 s; of what it has done since nobody hears
                time.sleep(0.15)
                os.kill(load.process_ids[0], signal.SIGKILL)

        with LoadGenerator(database, plan) as load:
            description = RunDescription("run", "1", "db", "here", "17", clock.now(), 3.0, 1.0, 3)
            recorder, timeline = Recorder(target, clock, samples=load.samples), Timeline(clock, description)
            with RunJournal(tmp_path / "run", description) as journal:
                course = Course(journal, recorder, timeline, clock, watch=watch, load=load, epoch=epoch)
                result = run_soak(journal, course, on_interval=kill)
                totals, state = journal.state.totals, journal.state
        assert result.clients_died_total == 1
        assert totals.unclear_at_most is None
        with pytest.raises(IntegrityViolated, match="must hold"):  # what it would have come to
            ledger.check(totals.written_total, totals.unclear_total)
        accounts.take_over(replace(state, ending=Ending.STOPPED))
        # what was acknowledged is asked for all the same
        with pytest.raises(IntegrityViolated, match="at least"):
            accounts.settle(replace(totals, written_total=totals.written_total + 10_000))
    intervals = list(read_run(tmp_path / "run").intervals)
    assert [interval.state for interval in intervals].count(IntervalState.DEGRADED) == 1
    told = [event.text for interval in intervals for event in interval.events if event.kind is EventKind.RUNNER]
    assert len(told) == 1
    assert "client process of the load died" in told[0]


def test_a_violation_that_a_resume_finds_ends_the_run_by_its_own_criteria(database, tmp_path):
    create_tables(database, 0.005)
    clock, home = SystemClock(), Home(tmp_path, tmp_path / "logs")
    session = SimpleNamespace(settings=load_settings({}), home=home, clock=clock)
    kept = {"success_ratio": 0.5, "drift": {"metrics": []}}
    load = {"criteria": kept, "rate_per_second": 1.0, "mix": {}}
    description = RunDescription("run", "1", "db", "here", "17", clock.now(), 60.0, 10.0, 3, load)
    with Ledger(database, "run") as ledger, RunJournal(home.runs_of("1") / "run", description) as journal:
        ledger.take(0, is_new=True)
        journal.append(Begun(1, clock.now(), 0))
        interval = Interval(0, 1, IntervalState.MEASURED, clock.now(), clock.now())
        journal.append(Measured(interval, Totals(written_total=5), ClockMark()))
        ledger.take(1, is_new=False)
        with pytest.raises(IntegrityViolated, match="holds 0 operations, and must hold at least 5"):
            _take_over(session, journal, Accounts(session, ledger, 0.005), limits_of(session.settings, description))
    (known,) = runs_in(home.runs_of("1"))
    assert (known.status, known.can_go_on) == ("violated", False)
    document = json.loads((home.logs / "test-run" / "report.json").read_text(encoding="utf-8"))
    limits = {one["name"]: one["limit"] for one in document["criteria"]}
    assert "50 %" in limits["success"]
    assert document["verdict"] == "failed"
