"""What the load generator does when tables, sessions, the server, its own processes or its parent go away."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import psycopg
import pytest

from ml_postgres_optimization.errors import PrivilegeMissing, UsageError
from ml_postgres_optimization.workload import (
    SOAK_MIX,
    LoadGenerator,
    LoadPlan,
    OperationKind,
    OperationMix,
    create_tables,
)
from ml_postgres_optimization.workload.faults import hold_row_lock, hold_table_lock
from ml_postgres_optimization.workload.generator.admission import admit
from ml_postgres_optimization.workload.generator.crew import Crew

SCALE = 0.005
ROOT = Path(__file__).resolve().parents[2]
READS = OperationMix({OperationKind.READ: 1})
WRITES = OperationMix({OperationKind.WRITE: 1})


@pytest.fixture
def loaded(database):
    create_tables(database, SCALE)
    return database


def run(dsn, *statements):
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def one(dsn, query):
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(query).fetchone()[0]


def until(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def more(load, operations=50):
    """Return whether so many operations more than now have succeeded."""
    before = load.counters.succeeded_total
    return lambda: load.counters.succeeded_total >= before + operations


def adds_up(counters):
    parts = counters.succeeded_total + counters.failed_total + counters.skipped_total
    return counters.due_total == parts


def codes(batches):
    return [code.decode() for batch in batches for code in batch.sqlstate.tolist() if code]


def client_processes(parent):
    found = []
    for child in psutil.Process(parent).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if any(argument.endswith("workload.process") for argument in child.cmdline()):
                found.append(child.pid)
    return found


def is_running(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_table_that_is_dropped_and_comes_back(loaded):
    plan = LoadPlan(READS, rate_per_second=200.0, connections=2, processes=1)
    with LoadGenerator(loaded, plan) as load:
        until(more(load))
        run(loaded, "ALTER TABLE genesis_load.accounts RENAME TO elsewhere")
        until(lambda: load.counters.failed_total > 20)
        run(loaded, "ALTER TABLE genesis_load.elsewhere RENAME TO accounts")
        until(more(load))
    assert set(codes(load.samples())) == {"42P01"}
    assert load.counters.connections_lost_total == 0
    assert adds_up(load.counters)


def test_a_table_whose_shape_changes_fails_each_session_once_at_most(loaded):
    plan = LoadPlan(READS, rate_per_second=400.0, connections=4, processes=1)
    with LoadGenerator(loaded, plan) as load:
        until(more(load, 100))
        run(loaded, "ALTER TABLE genesis_load.accounts ALTER COLUMN updates_total TYPE numeric")
        until(more(load, 200))
    failures = codes(load.samples())
    assert set(failures) <= {"0A000"}
    assert len(failures) <= 4


def test_terminated_backends_are_counted_by_the_servers_own_word_and_replaced(loaded):
    plan = LoadPlan(OperationMix({OperationKind.TRANSACTION: 1}), connections=4, clients=4, processes=1)
    killed, failures = 0, []
    with LoadGenerator(loaded, plan) as load:
        # a backend between two operations says nothing: its client then knows of a lost connection only (08003)
        for _ in range(20):
            until(more(load))
            killed += one(
                loaded,
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE application_name = 'genesis-load' AND datname = current_database()",
            )
            until(more(load, 200))
            failures += codes(load.samples())
            if "57P01" in failures:
                break
    failures += codes(load.samples())
    assert killed >= 4
    assert set(failures) <= {"57P01", "08003", "08006"}
    assert "57P01" in failures
    assert load.counters.connections_lost_total == killed
    assert not load.failed
    assert adds_up(load.counters)


def test_no_acknowledged_write_is_missing_after_terminated_backends(loaded):
    with LoadGenerator(loaded, LoadPlan(WRITES, connections=4, clients=8, processes=1)) as load:
        for _ in range(5):
            until(more(load))
            run(
                loaded,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'genesis-load' AND datname = current_database()",
            )
    rows = one(loaded, "SELECT count(*) FROM genesis_load.operations WHERE kind = 'write'")
    counters = load.counters
    assert counters.succeeded_total <= rows <= counters.succeeded_total + counters.failed_total
    assert counters.failed_total > 0


def test_an_outage_of_the_server_is_waited_for_and_shows_in_the_response_times(own_server):
    create_tables(own_server.dsn, SCALE)
    plan = LoadPlan(READS, rate_per_second=200.0, connections=2, processes=1)
    with LoadGenerator(own_server.dsn, plan) as load:
        until(more(load))
        own_server.kill()
        until(lambda: sum(load.counters.connection_failures.values()) > 0)
        down = time.monotonic()
        until(lambda: time.monotonic() > down + 0.2)
        restarting = time.monotonic()
        own_server.restart()
        until(more(load, 300))
    assert not load.failed
    assert load.counters.connections_lost_total >= 2
    assert set(load.counters.connection_failures) <= {"08001", "57P03", "08006", "57P01", "57P02"}
    batches = load.samples()
    intended = np.concatenate([batch.intended_start_seconds for batch in batches])
    end = np.concatenate([batch.end_seconds for batch in batches])
    succeeded = np.concatenate([batch.sqlstate == b"" for batch in batches])
    during = (intended > down) & (intended < restarting) & succeeded
    assert np.count_nonzero(during) > 5
    assert np.all(end[during] > restarting)
    assert adds_up(load.counters)


def test_a_client_process_that_dies_is_replaced_and_nothing_is_passed_over(loaded):
    plan = LoadPlan(READS, rate_per_second=300.0, connections=4, processes=2)
    with LoadGenerator(loaded, plan) as load:
        until(more(load, 100))
        victim = load.process_ids[0]
        os.kill(victim, signal.SIGKILL)
        until(lambda: load.counters.restarts_total == 1)
        assert load.counters.died_total == 1
        assert load.failed
        assert "-9" in load.last_failure
        until(more(load, 300))
        assert victim not in load.process_ids
        at_least = 300.0 * (time.monotonic() - load.started_at_seconds)
    at_most = 300.0 * (time.monotonic() - load.started_at_seconds)
    assert adds_up(load.counters)
    # what came due while nobody was there is in the count
    assert at_least - 5 * np.sqrt(at_least) - 0.2 * 300.0 < load.counters.due_total < at_most + 5 * np.sqrt(at_most)
    assert load.counters.failed_total == 0
    assert sum(len(batch) for batch in load.samples()) == load.counters.succeeded_total


def test_a_client_process_that_hangs_is_killed_and_replaced(loaded):
    plan = LoadPlan(READS, rate_per_second=100.0, connections=2, processes=1)
    crew = Crew(admit(loaded, plan), plan, maximum_silence_seconds=1.5)
    crew.start()
    try:
        until(lambda: crew.counters.succeeded_total > 10)
        os.kill(crew.process_ids[0], signal.SIGSTOP)
        until(lambda: crew.counters.restarts_total >= 1)
        assert "said nothing" in crew.last_failure
        before = crew.counters.succeeded_total
        until(lambda: crew.counters.succeeded_total > before + 10)
    finally:
        crew.stop(1.0)
    assert adds_up(crew.counters)


def breaks_after_half_a_second(seconds):
    if seconds > 0.5:
        raise ArithmeticError("no rate for this time")
    return 1.0


def test_a_rate_shape_that_breaks_is_reported_not_passed_over(loaded, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    plan = LoadPlan(READS, rate_per_second=100.0, connections=1, processes=1, rate_shape=breaks_after_half_a_second)
    with LoadGenerator(loaded, plan) as load:
        until(lambda: load.failed)
        assert "no rate for this time" in load.last_failure


def test_a_role_that_may_not_touch_the_tables_is_told_before_the_load_begins(loaded):
    name = psycopg.conninfo.conninfo_to_dict(loaded)["dbname"]
    run(loaded, f"CREATE ROLE reader_of_{name} LOGIN")
    try:
        with (
            pytest.raises(PrivilegeMissing),
            LoadGenerator(psycopg.conninfo.make_conninfo(loaded, user=f"reader_of_{name}"), LoadPlan(READS)),
        ):
            raise AssertionError
        assert client_processes(os.getpid()) == []
    finally:
        run(loaded, f"DROP ROLE reader_of_{name}")


def test_no_process_and_no_session_is_left(loaded):
    with LoadGenerator(loaded, LoadPlan(SOAK_MIX, rate_per_second=100.0, connections=4, processes=2)) as load:
        until(more(load, 20))
        assert sorted(client_processes(os.getpid())) == sorted(load.process_ids)
    assert client_processes(os.getpid()) == []
    assert one(loaded, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'genesis-load'") == 0


def test_an_exception_in_the_body_stops_the_load(loaded):
    with pytest.raises(ZeroDivisionError), LoadGenerator(loaded, LoadPlan(READS, rate_per_second=50.0)):
        raise ZeroDivisionError
    assert client_processes(os.getpid()) == []


# run as a script, so that its main module is one that the client processes must not import again
PARENT = """
import sys, time
sys.path.insert(0, {root!r})
from ml_postgres_optimization.workload import SOAK_MIX, LoadGenerator, LoadPlan
assert sys.argv[1:] == [], "a client process imported the main module"
with LoadGenerator({dsn!r}, LoadPlan(SOAK_MIX, rate_per_second=200.0, connections=4, processes=2)) as load:
    try:
        print(*load.process_ids, flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
print("ended", load.failed, flush=True)
"""


@pytest.fixture
def parent(loaded, tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(root=str(ROOT), dsn=loaded))
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        start_new_session=True,
    )
    with process:
        yield process
        process.kill()


def test_client_processes_do_not_outlive_a_parent_that_is_killed(parent, loaded):
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert pids
    assert all(is_running(pid) for pid in pids)
    parent.kill()
    parent.wait()
    until(lambda: not any(is_running(pid) for pid in pids), seconds=5.0)
    until(lambda: one(loaded, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'genesis-load'") == 0)


def test_ctrl_c_is_the_parents_to_answer_and_no_child_writes_to_the_terminal(parent):
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    os.killpg(parent.pid, signal.SIGINT)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)
    output, errors = parent.communicate(timeout=30)
    assert output.split("\n") == ["interrupted", "ended False", ""]
    assert errors == ""
    assert not any(is_running(pid) for pid in pids)


def test_a_row_lock_holds_up_updates_of_that_row_and_says_when(loaded):
    waited = []

    def update():
        began = time.monotonic()
        run(loaded, "UPDATE genesis_load.accounts SET updates_total = 0 WHERE account_id = 7")
        waited.append((began, time.monotonic()))

    blocked = threading.Thread(target=update)
    stalls = []
    holder = threading.Thread(target=lambda: stalls.append(hold_row_lock(loaded, 7, 0.5)))
    holder.start()
    until(
        lambda: one(
            loaded,
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'genesis-fault'"
            " AND state = 'idle in transaction'",
        )
    )
    run(loaded, "UPDATE genesis_load.accounts SET updates_total = 0 WHERE account_id = 8")
    blocked.start()
    holder.join()
    blocked.join()
    (stall,), ((_, ended),) = stalls, waited
    assert stall.ended_seconds - stall.began_seconds == pytest.approx(0.5, abs=0.2)
    assert ended > stall.began_seconds + 0.5
    assert one(loaded, "SELECT balance >= 0 FROM genesis_load.accounts WHERE account_id = 7")


@pytest.mark.parametrize("fault", [lambda dsn: hold_row_lock(dsn, 0, 0.1), lambda dsn: hold_table_lock(dsn, -1.0)])
def test_a_fault_that_makes_no_sense_is_refused(loaded, fault):
    with pytest.raises(UsageError):
        fault(loaded)
