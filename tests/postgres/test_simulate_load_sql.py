"""simulate_load.sql: the same rows for the same seed, and honest reference metrics."""

import itertools
import subprocess
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from ml_postgres_optimization.errors import SchemaForeign, SchemaMissing, ServerUnreachable, TargetError, UsageError
from ml_postgres_optimization.target.postgres import simulation
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings, connect
from ml_postgres_optimization.target.postgres.repository import Repository
from ml_postgres_optimization.target.postgres.schema import install_schema, uninstall_schema
from ml_postgres_optimization.target.postgres.simulation import SimulationPlan, simulate_load

SCRIPT = Path(simulation.__file__).parent / "sql" / "simulate_load.sql"
SMALL = SimulationPlan(rows=50, operations=200, seed=7, minutes=120, windows=4)

# What seed 7 means, on every version and machine.
SCHEDULE_OF_SEED_7 = "793ef2f118629514426b1392fe078151"

CONTENT = """
    SELECT md5(string_agg(content, E'\\n' ORDER BY content)) FROM (
        SELECT 'account ' || accounts::text AS content FROM genesis_simulation.accounts
        UNION ALL SELECT 'event ' || events::text FROM genesis_simulation.events
        UNION ALL SELECT 'due ' || format('%s %s %s %s %s', number, round(due_seconds::numeric, 6), kind, account_id,
            other_id) FROM genesis_simulation.schedule
    ) AS everything
"""


@pytest.fixture
def session(owner):
    with connect(ConnectionSettings.from_dsn(owner), statement_timeout_seconds=60) as connection:
        install_schema(connection)
        yield connection


def run_psql(psql, dsn, **arguments):
    variables = [part for name, value in arguments.items() for part in ("-v", f"{name}={value}")]
    return subprocess.run(
        [psql, "-X", "-d", dsn, *variables, "-f", SCRIPT], capture_output=True, text=True, check=False, timeout=100
    )


def content(connection):
    return connection.execute(CONTENT).fetchone()[0]


def test_psql_runs_it_in_an_empty_database(owner, psql):
    done = run_psql(psql, owner, rows=50, operations=200, seed=7, minutes=120, windows=4)
    assert done.returncode == 0, done.stderr
    assert "simulating 200 operations over 120 minutes on 50 accounts, seed 7" in done.stderr
    assert "100 %: 200 of 200 operations, window 4 of 4" in done.stderr
    with connect(ConnectionSettings.from_dsn(owner)) as connection:
        windows = Repository(connection).windows()
        assert [window.labels["phase"] for window in windows] == ["reference"] * 4
        assert sum(window.operations_total for window in windows) == 200
        assert sum(window.failed_total for window in windows) == 0
        by_psql = content(connection)
        simulate_load(connection, SMALL)
        assert content(connection) == by_psql


def test_every_argument_may_be_left_out(owner, psql):
    done = run_psql(psql, owner, operations=100)
    assert done.returncode == 0, done.stderr
    assert "simulating 100 operations over 1440 minutes on 10000 accounts, seed 1" in done.stderr


def test_a_seed_means_the_same_rows_on_every_version(session):
    simulate_load(session, SMALL)
    assert content(session) == SCHEDULE_OF_SEED_7


def test_another_seed_means_other_rows(session):
    simulate_load(session, SMALL)
    first = content(session)
    simulate_load(session, replace(SMALL, seed=8))
    assert content(session) != first


def test_keys_kinds_and_hours_follow_their_laws(session):
    session.execute("CREATE SCHEMA IF NOT EXISTS nothing")
    simulate_load(session, SimulationPlan(rows=10, operations=1, windows=1))  # makes the functions
    session.execute("SELECT genesis_simulation.make_schedule(3, 20000, 1440, 1000)")
    rows = session.execute(
        "SELECT kind, account_id, floor(due_seconds / 3600)::integer, due_seconds FROM genesis_simulation.schedule "
        "WHERE seed = 3 ORDER BY number"
    ).fetchall()
    kinds = Counter(row[0] for row in rows)
    shares = {"read": 0.45, "write": 0.30, "update": 0.15, "transaction": 0.05, "delete": 0.05}
    for kind, share in shares.items():
        assert kinds[kind] / 20000 == pytest.approx(share, abs=0.015)
    # Zipf with 0.99 over 1,000 keys: the first has 1 / sum(rank ** -0.99) = 12.9 % of all, the second half of that
    (_, first), (_, second), *_ = Counter(row[1] for row in rows).most_common()
    weight = sum(rank**-0.99 for rank in range(1, 1001))
    assert first / 20000 == pytest.approx(1 / weight, rel=0.1)
    assert second / 20000 == pytest.approx(2**-0.99 / weight, rel=0.1)
    assert {row[1] for row in rows} <= set(range(1, 1001))
    due = [row[3] for row in rows]
    assert due == sorted(due)
    assert 0 <= due[0] < due[-1] < 86400
    hours = Counter(row[2] for row in rows)
    night, day = (sum(hours[hour] for hour in part) for part in (range(6), range(11, 17)))
    assert day > 2 * night
    per_ten_minutes = Counter(int(seconds // 600) for seconds in due)
    loudest = max(per_ten_minutes.values())
    assert loudest > 2.5 * sum(per_ten_minutes.values()) / 144  # a burst


def test_gaps_are_exponential_as_those_of_a_poisson_process(session):
    simulate_load(session, SimulationPlan(rows=10, operations=1, windows=1))
    session.execute("SELECT genesis_simulation.make_schedule(5, 5000, 10, 100)")  # ten minutes: no cycle within
    due = [
        row[0]
        for row in session.execute(
            "SELECT due_seconds FROM genesis_simulation.schedule WHERE seed = 5 ORDER BY number"
        )
    ]
    gaps = [after - before for before, after in itertools.pairwise(due)]
    mean = sum(gaps) / len(gaps)
    variation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5 / mean
    assert variation == pytest.approx(1, abs=0.06)
    assert sum(gap > mean for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.03)


def test_reference_metrics_are_those_of_the_operations(session):
    simulate_load(session, SMALL)
    windows = Repository(session).windows()
    counted = Counter()
    for window in windows:
        assert window.duration_seconds == 1800
        assert window.service.mean_seconds > 0
        assert window.response.mean_seconds >= window.service.mean_seconds
        for kind, part in window.operations.items():
            counted[kind] += part.response.total
    due = session.execute("SELECT kind, count(*) FROM genesis_simulation.schedule GROUP BY kind").fetchall()
    assert counted == dict(due)
    assert windows[-1].ended_at <= session.execute("SELECT now()").fetchone()[0]
    row = session.execute(
        "SELECT sum(operations), max(p99_ms) > 0 FROM (SELECT operations_total AS operations, p99_response_seconds "
        "AS p99_ms FROM genesis.metric_windows) AS w"
    ).fetchone()
    assert row == (200, True)
    known = Repository(session).configurations()
    assert {window.configuration_id for window in windows} <= set(known)


def test_it_commits_as_it_goes(session, owner):
    def interrupt(line):
        if "window 1 of 4" in line:
            with psycopg.connect(owner) as other:
                other.execute("SELECT pg_terminate_backend(%s)", [session.info.backend_pid])

    with pytest.raises(ServerUnreachable):
        simulate_load(session, replace(SMALL, operations=4000), progress=interrupt)
    with psycopg.connect(owner) as other:
        assert other.execute("SELECT count(*) FROM genesis_simulation.events").fetchone()[0] > 0
        assert 1 <= other.execute("SELECT count(*) FROM genesis.metric_windows").fetchone()[0] < 4


def test_failures_are_counted_and_do_not_end_it(session):
    simulate_load(session, SMALL)
    session.execute("ALTER TABLE genesis_simulation.events ADD CONSTRAINT few CHECK (amount < 50) NOT VALID")
    simulate_load(session, replace(SMALL, labels={"test": "failing"}))
    windows = [window for window in Repository(session).windows() if window.labels.get("test") == "failing"]
    failed = sum(window.errors.get("23514", 0) for window in windows)
    due = session.execute(
        "SELECT count(*) FROM genesis_simulation.schedule WHERE kind IN ('write', 'transaction') AND amount >= 50"
    ).fetchone()[0]
    assert failed == sum(window.failed_total for window in windows) == due > 0


def test_several_sessions_work_on_the_same_accounts(owner, session):
    simulate_load(session, SimulationPlan(rows=10, operations=1, windows=1))
    failures = []

    def run(seed):
        plan = SimulationPlan(rows=20, operations=150, seed=seed, minutes=60, windows=2, labels={"test": "together"})
        with connect(
            ConnectionSettings.from_dsn(owner), statement_timeout_seconds=60, lock_timeout_seconds=30
        ) as one:
            try:
                simulate_load(one, plan)
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in (11, 12, 13)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    together = [window for window in Repository(session).windows() if window.labels.get("test") == "together"]
    assert sum(window.operations_total for window in together) == 450
    assert {error for window in together for error in window.errors} <= {"40P01"}


def test_a_seed_runs_only_once_at_a_time(session, owner):
    simulate_load(session, SMALL)
    with psycopg.connect(owner, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(hashtextextended('genesis-pg simulation 7', 0))")
        with pytest.raises(UsageError, match="seed 7 is under way"):
            simulate_load(session, SMALL)
    simulate_load(session, SMALL)


@pytest.mark.parametrize(
    ("argument", "value", "said"),
    [
        ("rows", 0, "rows is 0"),
        ("operations", -5, "operations is -5"),
        ("minutes", 999999, "minutes is 999999"),
        ("windows", 0, "windows is 0"),
        ("pace", "slow", "pace is 'slow'"),
        ("rows", "many", 'invalid input syntax for type integer: "many"'),
        ("seed", "1; DROP TABLE x", "invalid input syntax for type bigint"),
    ],
)
def test_wrong_arguments_are_refused(owner, session, psql, argument, value, said):
    done = run_psql(psql, owner, **{argument: value})
    assert done.returncode == 3
    assert said in done.stderr
    assert session.execute("SELECT count(*) FROM genesis.metric_windows").fetchone() == (0,)


def test_wrong_arguments_are_refused_in_python(session):
    with pytest.raises(UsageError, match="operations is 0"):
        simulate_load(session, SimulationPlan(operations=0))


def test_a_foreign_schema_is_refused(session, owner, psql):
    session.execute("CREATE SCHEMA genesis_simulation")
    with pytest.raises(SchemaForeign, match="genesis_simulation"):
        simulate_load(session, SMALL)
    assert "was not made by genesis-pg" in run_psql(psql, owner).stderr
    uninstall_schema(session)
    assert session.execute("SELECT to_regnamespace('genesis_simulation') IS NOT NULL").fetchone() == (True,)


def test_uninstall_takes_its_tables_along(session):
    simulate_load(session, SMALL)
    uninstall_schema(session)
    assert session.execute("SELECT to_regnamespace('genesis_simulation')").fetchone() == (None,)


def test_without_schema_genesis_python_says_so(owner):
    with connect(ConnectionSettings.from_dsn(owner)) as connection, pytest.raises(SchemaMissing):
        simulate_load(connection, SMALL)


def test_in_real_time_it_waits_until_each_operation_is_due(session):
    simulate_load(session, SimulationPlan(rows=10, operations=1, windows=1))
    before = session.execute("SELECT clock_timestamp()").fetchone()[0]
    plan = SimulationPlan(rows=10, operations=3, seed=2, minutes=1, windows=60, real_time=True)
    session.execute("SET statement_timeout = '600ms'")
    with pytest.raises(TargetError, match="statement timeout"):
        simulate_load(session, plan)
    session.execute("SET statement_timeout = 0")
    (due,) = session.execute("SELECT min(due_seconds) FROM genesis_simulation.schedule WHERE seed = 2").fetchone()
    assert due > 0.6
    assert (session.execute("SELECT clock_timestamp()").fetchone()[0] - before).total_seconds() < due
