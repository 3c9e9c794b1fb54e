"""Faults beside the extended test, on a real server: told, put back, and refused where they must not strike."""

import time
from dataclasses import replace

import psycopg
import pytest
from command_line import CommandLine, clean_environment

from ml_postgres_optimization.interfaces.commands.soaking.disturbing import (
    Disturbable,
    DisturbedLoad,
    kept_faults,
)
from ml_postgres_optimization.soak.interval import EventKind
from ml_postgres_optimization.soak.journal import FILE, RunDescription, read_run
from ml_postgres_optimization.soak.running import Timeline
from ml_postgres_optimization.telemetry import SystemClock
from ml_postgres_optimization.workload import SOAK_MIX, LoadGenerator, LoadPlan, create_tables
from ml_postgres_optimization.workload.accounting import Ledger
from ml_postgres_optimization.workload.faults import FaultGround, FaultList, FaultProxy

SCALE = 0.005
FAULTS = FaultList(
    (
        {"kind": "lock_stall", "every": 1, "seconds": 30},
        {"kind": "lost_commits", "every": 1, "seconds": 30},
    )
)


def fault_sessions(dsn):
    with psycopg.connect(dsn, autocommit=True) as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'genesis-fault'"
        return connection.execute(query).fetchone()[0]


def test_a_fault_under_way_is_told_and_put_back_before_the_load_is_stopped(database):
    create_tables(database, SCALE)
    clock, texts = SystemClock(), []
    description = RunDescription(
        *("run", "1", "db", "here", "17", clock.now(), 60.0, 1.0, 3), load=kept_faults(FAULTS)
    )
    # as another runner reads it
    description = RunDescription.from_bytes(description.to_bytes())
    plan = LoadPlan(SOAK_MIX, rate_per_second=300.0, connections=4, processes=1, seed=3)
    with Ledger(database, "run") as ledger, FaultProxy(database) as line:
        plan = replace(plan, ledger=("run", ledger.take(0, is_new=True)))
        with LoadGenerator(line.dsn, plan) as load:
            ground = FaultGround(database, plan, line=line)
            disturbed = DisturbedLoad(Disturbable(load, ground), description, Timeline(clock, description), clock)
            deadline = time.monotonic() + 30.0
            with disturbed:
                # one that outlasts every other, so that what is due meanwhile is passed over
                while not (any("under way" in text for text in texts) and any("was due" in text for text in texts)):
                    assert time.monotonic() < deadline, texts
                    texts += [event.text for event in disturbed.events()]
                    time.sleep(0.05)
                disturbed.stop()
                ended = disturbed.events()
            assert [event.kind for event in ended if event.until] == [EventKind.FAULT]
            assert all(event.until > event.at for event in ended if event.until)
            assert disturbed.events() == ()
            assert fault_sessions(database) == 0
        batches = load.samples()
        written = sum(int((batch.kind_index[batch.sqlstate == b""] != 0).sum()) for batch in batches)
        assert ledger.check(written) >= written > 0
        ledger.check_balance()


def test_a_server_of_a_users_is_not_crashed(database, tmp_path, monkeypatch, capsys):
    clean_environment(monkeypatch, tmp_path)
    cli = CommandLine(capsys, tmp_path, database)
    cli("test", "--simulate", "--faults", "hard", "--dry-run").is_refused(2, "crash and restart", "server of yours")
    done = cli("test", "--simulate", "--faults", "light", "--mix", "reads=1", "--dry-run").done()
    assert "a mix of your own" in done.out and "termination every 600 s" in done.out
    cli("test", "--resume", "--faults", "light").is_refused(2, "--faults", "began with")
    cli("test", "--simulate", "--mix", "reads=0").is_refused(2, "weight of reads")


@pytest.mark.long
def test_a_test_under_faults_keeps_its_ledger_and_marks_them(own_server, tmp_path, monkeypatch, capsys):
    home = tmp_path / "home"
    clean_environment(monkeypatch, home)
    monkeypatch.setenv("GENESIS_WINDOW_SECONDS", "1")
    monkeypatch.setattr("command_line.NAMES_A_SERVER", ("PG", "POSTGRES_"))
    path = tmp_path / "offered.toml"
    path.write_text(
        f"hours = 0.003\nrate = 200\nscale = {SCALE}\nseed = 5\n[mix]\nreads = 1\ntransactions = 3\n"
        + "".join(
            f'[[faults]]\nkind = "{kind}"\nevery = 2\nseconds = 0.5\n'
            for kind in ("termination", "lost_commits", "line_cut", "lock_stall")
        ),
        encoding="utf-8",
    )
    cli = CommandLine(capsys, home, own_server.dsn)
    cli("setup").done()
    cli("test", "--simulate", "--workload-file", path).done(0, 1)
    (journal,) = home.glob(f"servers/*/soaks/*/{FILE}")
    events = [event for interval in read_run(journal.parent).intervals for event in interval.events]
    told = {event.text.partition(",")[0] for event in events if event.kind is EventKind.FAULT and event.until}
    assert len(told & {"Fault termination", "Fault lost commits", "Fault line cut", "Fault lock stall"}) >= 3
    assert "failed" not in " ".join(event.text for event in events if event.kind is EventKind.INTEGRITY)
    assert fault_sessions(own_server.dsn) == 0
