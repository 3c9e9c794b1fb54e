"""SQL computes from a stored window what Python does, and forecasts by what `train` leaves in the database."""

import math
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import psycopg
import pytest
from command_line import CommandLine, by_hand, clean_environment, rows

from ml_postgres_optimization.knobs.configuration import CONCURRENCY, Configuration
from ml_postgres_optimization.models.artifact import load_model
from ml_postgres_optimization.models.error_forest import ErrorForest
from ml_postgres_optimization.models.features import TELEMETRY, features, observations
from ml_postgres_optimization.models.latency_forest import LatencyForest
from ml_postgres_optimization.retry.classification import ErrorClass, error_class
from ml_postgres_optimization.target.host import HostProbe
from ml_postgres_optimization.target.postgres.capabilities import read_capabilities
from ml_postgres_optimization.target.postgres.collector import StatisticsCollector
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings, connect
from ml_postgres_optimization.target.postgres.repository import Repository
from ml_postgres_optimization.target.postgres.schema import install_schema
from ml_postgres_optimization.telemetry import Histogram, OperationWindow, StatementCounters, Window, between

# over midnight, and not so long ago that retention would drop it
START = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(seconds=50)
LATELY = datetime.now(UTC).replace(microsecond=7) - timedelta(minutes=50)
SECONDS = 10.0
STOCK = Configuration(
    {
        **{"work_mem": 4096, "jit": True, "fsync": "on", "wal_compression": "lz4", "commit_delay": 0},
        **{"random_page_cost": 1.1, "log_temp_files": -1, CONCURRENCY: 16},
    }
)
OTHER = STOCK.replaced({"work_mem": 65536, CONCURRENCY: 0})
PAGE = Path(__file__).resolve().parents[2] / "docs" / "prediction.md"
ALL = "SELECT * FROM genesis.window_features('-infinity', 'infinity')"


@pytest.fixture
def session(owner):
    with connect(ConnectionSettings.from_dsn(owner), statement_timeout_seconds=60) as connection:
        install_schema(connection)
        yield connection


@pytest.fixture
def repository(session):
    repository = Repository(session)
    for configuration in (STOCK, OTHER):
        repository.add_configuration(configuration, origin="test")
    return repository


@pytest.fixture
def live(server, database):
    """A window that a real server's statistics made."""
    with psycopg.connect(database, autocommit=True, application_name="genesis-pg: test") as connection:
        collector = StatisticsCollector(
            connection, read_capabilities(connection), HostProbe(data_directory=server.data_directory)
        )
        before, activity = collector.snapshot(), collector.activity()
        connection.execute("SELECT count(*) FROM pg_class")
        return between(before, collector.snapshot(), configuration_id=STOCK.id, activity=[activity])


def moved(window, number, **changes):
    """Return the window as the one with this number of its run."""
    started_at = START + timedelta(seconds=SECONDS * number)
    times = {"started_at": started_at, "ended_at": started_at + timedelta(seconds=SECONDS)}
    return replace(window, **{**times, "labels": {"run": "r1"}, **changes})


def operations(seed, kinds=("read", "write", "join", "vacuum"), failed=0):
    rng = np.random.default_rng(seed)
    made = {}
    for kind in kinds:
        response = rng.lognormal(-6.0, 1.0, 50)
        made[kind] = OperationWindow(Histogram.of(response), Histogram.of(0.7 * response))
    first = kinds[0]
    return {**made, first: replace(made[first], failed_total=failed)}


def kinds_of_windows(live):
    """Return windows of every kind that is recorded, by what is peculiar to each."""
    lag = Histogram.of([1e-4, 3e-4])
    failures = {"40P01": 2, "57014": 1, "": 1, "23505": 3}
    statements = {
        (7, 10, 5): StatementCounters(3, 0.25, 3, 0, 9, 0, 0.0),
        (8, 10, 5): StatementCounters(1, 0.5, *[0] * 5),
    }
    odd = {"database.commits_per_second": math.inf, "wal.syncs_per_second": math.nan, "knob.work_mem": 3.0}
    due = {**live.rates, "load.due_per_second": 21.3}
    return {
        "open loop": moved(live, 0, operations=operations(1), lag=lag, rates=due, skipped_total=7),
        "its successor": moved(live, 1, operations=operations(2, failed=7), errors=failures, rates=due),
        "another configuration": moved(live, 2, operations=operations(3), configuration_id=OTHER.id),
        "after a gap": moved(live, 5, operations=operations(4), waits={}),
        "closed loop": moved(live, 6, operations=operations(5), labels={"run": "r1", "loop": "closed", "level": "Ñ"}),
        "of another run": moved(live, 6.5, operations=operations(6), labels={"run": "r2", "level": "HIGH"}),
        "nobody counted": moved(live, 7, operations=operations(7), skipped_total=3, waits={"CPU": 0.5, "Odd": 1.0}),
        "only statements": moved(live, 8, statements=statements),
        "all statements together": moved(
            live,
            8,
            labels={"run": "r4"},
            rates={**live.rates, "statements.calls_per_second": 30.0, "statements.execution_seconds_per_second": 0.7},
        ),
        "only deadlocks": moved(live, 9, rates={**live.rates, "database.deadlocks_per_second": 0.25}),
        "without a run": moved(live, 9, labels={}),
        "not finite": moved(live, 10, rates=odd, gauges={"wal.syncs_per_second": 5.0, "locks.waiting": -math.inf}),
        "nothing at all": Window(START, START, STOCK.id, {"run": "r3"}),
        "unknown configuration": moved(live, 11, configuration_id="never met"),
    }


def narrow(named):
    with np.errstate(over="ignore"):
        values = {name: np.float32(np.nan if value is None else float(value)) for name, value in named.items()}
    return {name: value if np.isfinite(value) else np.float32(np.nan) for name, value in values.items()}


def differences(seen, wanted):
    """Return the features that differ by more than the last bit of 32."""
    seen, wanted = narrow(seen), narrow(wanted)
    assert seen.keys() == wanted.keys()
    return {
        name: (seen[name], wanted[name])
        for name in wanted
        if not np.isclose(seen[name], wanted[name], rtol=1.2e-7, atol=1e-38, equal_nan=True)
    }


def test_sql_computes_the_features_that_python_does(session, repository, live):
    for window in kinds_of_windows(live).values():
        repository.add(window)
    session.execute("SELECT genesis.record_window()")
    session.execute('SELECT genesis.record_window(\'{"phase": "by SQL"}\')')
    wanted = observations(repository.windows(), repository.configurations())
    found = session.execute(ALL).fetchall()
    assert len(found) == len(wanted) == 14
    # both in the order of time; of those that began at the same time by run
    found.sort(key=lambda row: (row[1], row[3] or ""))
    wanted.sort(key=lambda one: (one.window.started_at, one.window.labels.get("run", "")))
    for row, observation in zip(found, wanted, strict=True):
        assert row[1] == observation.window.started_at
        assert differences(row[5], features(observation)) == {}, observation.window.labels
    assert sum(one.previous is not None for one in wanted) == 7
    # one by one, and from any moment on, they are the same
    one_by_one = "SELECT genesis.window_features(one) FROM genesis.metric_windows AS one WHERE id = %s"
    since = "SELECT features FROM genesis.window_features(%s, %s) WHERE window_id = %s"
    for row in found[:4]:
        assert session.execute(one_by_one, [row[0]]).fetchall() == [(row[5],)]
        moment = [row[1], row[1] + timedelta(seconds=1), row[0]]
        assert session.execute(since, moment).fetchall() == [(row[5],)]


READ = (
    "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables "
    "WHERE relname LIKE 'metric_windows%'"
)


MANY_WINDOWS = (
    "INSERT INTO genesis.metric_windows (started_at, ended_at, configuration_id, labels, rates) "
    "SELECT at, at + interval '1 second', %s, '{\"run\": \"r1\"}', '{\"database.commits_per_second\": 9}' "
    "FROM generate_series(%s::timestamptz, %s::timestamptz - interval '1 second', interval '1 second') AS at"
)


def test_the_window_before_a_range_is_sought_and_not_every_window_before_it(session, repository):
    until = LATELY + timedelta(hours=2)
    session.execute(MANY_WINDOWS, [STOCK.id, LATELY, until])
    session.execute("ANALYZE genesis.metric_windows")
    asked = [until - timedelta(seconds=2)]
    with session.transaction():
        (before,) = session.execute(READ).fetchone()
        found = session.execute("SELECT features FROM genesis.window_features(%s, 'infinity')", asked).fetchall()
        (after,) = session.execute(READ).fetchone()
    assert [features["trend.log_throughput"] for (features,) in found] == [0, 0]
    assert after - before < 100


def test_the_lists_of_names_are_those_of_python(session):
    assert session.execute("SELECT genesis.telemetry_features()").fetchone()[0] == list(TELEMETRY)
    codes = ["", "40001", "40P01", "40003", "25006", "55P03", "57014", "25P03", "25P04", "57P05", "08006", "57P01"]
    codes += ["53300", "58030", "XX001", "23505", "0A000", "42P01"]
    query = "SELECT genesis.error_class(code) FROM unnest(%s::text[]) AS code"
    found = [name for (name,) in session.execute(query, [codes])]
    assert found == [error_class(code).value for code in codes]
    assert set(found) == {one.value for one in ErrorClass}
    assert session.execute("SELECT genesis.error_class(NULL)").fetchone() == ("connection",)


def recorded(count, seed):
    """Return windows of one run, with what a forest can learn from and every window's deadlock by lot."""
    rng = np.random.default_rng(seed)
    state = 0.0
    for number in range(count):
        state = 0.3 * state + 0.3 * rng.normal()
        times = np.exp(-6.0 + state) * rng.lognormal(0.0, 0.2, 20)
        failed = int(rng.random() < 0.3)
        yield Window(
            started_at=LATELY + timedelta(seconds=SECONDS * number),
            ended_at=LATELY + timedelta(seconds=SECONDS * (number + 1)),
            configuration_id=(STOCK if number % 50 < 40 else OTHER).id,
            labels={"run": "r1", "level": "HIGH"},
            rates={"database.commits_per_second": float(rng.integers(100, 900))},
            gauges={"locks.waiting": float(rng.integers(0, 5))} if rng.random() < 0.8 else {},
            waits={"CPU": rng.random()},
            operations={"read": OperationWindow(Histogram.of(times), Histogram.of(0.5 * times), failed)},
            errors={"40P01": 1} if failed else {},
        )


FORECASTS = (
    "SELECT started_at, kind, predicted, low, high, level, actual FROM genesis.forecast_windows(%s, 'infinity')"
)


def python_forecasts(repository, latency, errors):
    wanted = {}
    for one in observations(repository.windows(), repository.configurations()):
        after = one.following
        if after is None or after.configuration_id != one.window.configuration_id:
            continue
        told = latency.predict(one)
        actual = after.response.mean_seconds
        wanted[after.started_at, "latency_seconds"] = (told.value, told.low, told.high, told.level, actual)
        for name, told in errors.predict(one).items():
            key = after.started_at, f"error_probability:{name}"
            wanted[key] = (told.value, told.low, told.high, told.level, float("40P01" in after.errors))
    return wanted


def test_what_train_stores_forecasts_in_sql_like_python(repository, session, owner, monkeypatch, capsys, tmp_path):
    assert session.execute("SELECT count(*) FROM genesis.forecasts").fetchone() == (0,)
    for window in recorded(260, 1):
        repository.add(window)
    assert session.execute(FORECASTS, [LATELY]).fetchall() == []
    clean_environment(monkeypatch, tmp_path / "home")
    here = CommandLine(capsys, tmp_path / "home", owner)
    ended = here("train", "--json").done()
    trained = {one["kind"]: one for one in ended.document["forests"]}
    assert {kind: one["in_database"] for kind, one in trained.items()} == {
        **{"latency": True, "errors": True},
        "knobs": False,
    }
    [folder] = (tmp_path / "home" / "servers").glob("*/models")
    latency, errors = load_model(LatencyForest, folder), load_model(ErrorForest, folder)
    stored = session.execute("SELECT kind, model_id, beats_naive FROM genesis.forests ORDER BY kind").fetchall()
    beats = any(score.beats_naive for score in errors.model.score.values())
    assert stored == [
        ("errors", errors.path.stem, beats),
        ("latency", latency.path.stem, latency.model.score.beats_naive),
    ]
    wanted = python_forecasts(repository, latency.model, errors.model)
    found = {(row[0], row[1]): row[2:] for row in session.execute(FORECASTS, [LATELY])}
    assert found.keys() == wanted.keys()
    assert len(wanted) == 2 * 249
    for key, told in found.items():
        assert told == pytest.approx(wanted[key], abs=1e-9), key
    counted = "SELECT count(*) FILTER (WHERE held), count(held), count(*) FROM genesis.forecasts"
    held, *of = session.execute(counted).fetchone()
    assert of == [249, 2 * 249]
    # some lie on the very end of their interval, by which it was calibrated
    told = [one for (_, kind), one in wanted.items() if kind == "latency_seconds"]
    inside, not_outside = (sum(one[1] + e < one[4] < one[2] - e for one in told) for e in (1e-9, -1e-9))
    assert 0 < inside <= held <= not_outside < 249
    examples = re.findall(r"^```sql\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    for example in [one for block in examples for one in block.split(";\n") if one.strip()]:
        assert session.execute(example).fetchall(), example


def test_a_role_that_may_only_read_trains_to_files_and_is_told(
    repository, owner, database, monkeypatch, capsys, tmp_path
):
    for window in recorded(80, 2):
        repository.add(window)
    reader = f"reader_of_{psycopg.conninfo.conninfo_to_dict(database)['dbname']}"
    by_hand(database, f"CREATE ROLE {reader} LOGIN")
    try:
        by_hand(
            owner,
            f"GRANT USAGE ON SCHEMA genesis TO {reader}",
            f"GRANT SELECT ON ALL TABLES IN SCHEMA genesis TO {reader}",
        )
        clean_environment(monkeypatch, tmp_path / "home")
        ended = CommandLine(capsys, tmp_path / "home", psycopg.conninfo.make_conninfo(database, user=reader))(
            "train"
        ).done()
        assert "stored as files only" in ended.out + ended.err
        assert "permission denied" in ended.out + ended.err
        assert list((tmp_path / "home").glob("servers/*/models/latency-*.skops"))
        assert rows(owner, "SELECT count(*) FROM genesis.forests") == [(0,)]
    finally:
        by_hand(database, f"DROP OWNED BY {reader}", f"DROP ROLE {reader}")
