"""The soak on a real server that is dead at the end."""

import threading
import time

from ml_postgres_optimization.soak.figures.fold import fold
from ml_postgres_optimization.soak.figures.outline import RunOutline
from ml_postgres_optimization.soak.journal import RunDescription, RunJournal, read_run
from ml_postgres_optimization.soak.judging.limits import Limits
from ml_postgres_optimization.soak.judging.verdict import judge
from ml_postgres_optimization.soak.runner import run_soak
from ml_postgres_optimization.soak.running import Course, Timeline, nobody_watches
from ml_postgres_optimization.target.postgres.connection import resolve_connection
from ml_postgres_optimization.target.postgres.server import PostgresTarget
from ml_postgres_optimization.telemetry import Recorder, SystemClock
from ml_postgres_optimization.workload import SOAK_MIX, LoadGenerator, LoadPlan, create_tables
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
