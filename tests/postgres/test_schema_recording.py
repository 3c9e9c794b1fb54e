"""genesis.record_window(), the histograms in SQL, and the views on what was recorded."""

import threading

import numpy as np
import psycopg
import pytest
from psycopg.rows import dict_row

from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.target.postgres.capabilities import read_capabilities
from ml_postgres_optimization.target.postgres.collector import StatisticsCollector
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings, connect
from ml_postgres_optimization.target.postgres.repository import Repository
from ml_postgres_optimization.target.postgres.schema import install_schema
from ml_postgres_optimization.telemetry import Histogram


@pytest.fixture
def session(owner):
    with connect(ConnectionSettings.from_dsn(owner), statement_timeout_seconds=60) as connection:
        install_schema(connection)
        yield connection


@pytest.fixture
def super_session(database):
    """A superuser's session, where the schema is there already or is made by it."""
    with connect(ConnectionSettings.from_dsn(database)) as connection:
        if connection.execute("SELECT to_regnamespace('genesis')").fetchone() == (None,):
            install_schema(connection)
        yield connection


def record(connection):
    return connection.execute("SELECT genesis.record_window()").fetchone()[0]


def recorded(connection):
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute("SELECT * FROM genesis.metric_windows ORDER BY started_at").fetchall()


def insert_counted(dsn, rows=1000):
    """Insert rows, and wait until the server's statistics, which are late on 14, count them."""
    counted = "SELECT tup_inserted FROM pg_stat_database WHERE datname = current_database()"
    with psycopg.connect(dsn, autocommit=True) as watcher:
        (before,) = watcher.execute(counted).fetchone()
        with psycopg.connect(dsn, autocommit=True) as other:
            other.execute("CREATE TABLE counted AS SELECT n FROM generate_series(1, %s::integer) AS n", [rows])
        for _ in range(100):
            watcher.execute("SELECT pg_stat_clear_snapshot(), pg_sleep(0.05)")
            if watcher.execute(counted).fetchone()[0] >= before + rows:
                return
    raise AssertionError("the server never counted the rows")


def test_the_first_call_takes_the_base_and_the_next_one_records(session, owner):
    assert record(session) is None
    assert recorded(session) == []
    insert_counted(owner)
    assert record(session) is not None
    (window,) = recorded(session)
    seconds = (window["ended_at"] - window["started_at"]).total_seconds()
    assert window["rates"]["database.inserted_tuples_per_second"] * seconds >= 1000
    assert window["commits_per_second"] == window["rates"]["database.commits_per_second"] > 0
    assert (window["run"], window["phase"]) == ("record_window", "recorded")
    assert window["operations_total"] == 0
    assert window["mean_response_seconds"] is None


def test_windows_follow_each_other_without_a_gap(session):
    for _ in range(3):
        record(session)
    first, second = recorded(session)
    assert first["ended_at"] == second["started_at"]


def test_a_window_is_kept_where_the_history_cannot_be(session, owner):
    for _ in range(2):
        record(session)
    assert "history" not in recorded(session)[-1]["unseen"]
    with psycopg.connect(owner) as other:
        other.execute("SELECT FROM genesis.observed_servers FOR UPDATE")
        assert record(session) is not None
    assert "lock timeout" in recorded(session)[-1]["unseen"]["history"]
    session.execute("REVOKE INSERT, UPDATE ON genesis.observed_servers FROM CURRENT_USER")
    assert record(session) is not None
    assert "permission denied" in recorded(session)[-1]["unseen"]["history"]


def test_only_one_of_several_callers_records_a_window(session, owner):
    record(session)
    barrier, results = threading.Barrier(3), []

    def call():
        with psycopg.connect(owner) as other:
            barrier.wait()
            results.append(record(other))
            barrier.wait()  # no one commits before all have called

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result is None for result in results) == [False, True, True]
    assert len(recorded(session)) == 1


def test_what_is_hidden_from_the_role_is_said(session, super_session):
    for connection in (session, session, super_session):
        record(connection)
    of_owner, of_superuser = recorded(session)
    assert "pg_monitor" in of_owner["unseen"]["activity"]
    assert "activity" not in of_superuser["unseen"]


def test_statements_give_the_mean_where_the_extension_is(database, binaries):
    if not binaries.has_library("pg_stat_statements"):
        pytest.skip("these binaries have no pg_stat_statements")
    with connect(ConnectionSettings.from_dsn(database)) as session:
        session.execute("CREATE SCHEMA extensions; CREATE EXTENSION pg_stat_statements SCHEMA extensions")
        assert install_schema(session).lost == ()
        # what other tests left there could be evicted in between
        session.execute("SELECT extensions.pg_stat_statements_reset()")
        record(session)
        session.execute("SELECT pg_sleep(0.02)")
        record(session)
        (window,) = recorded(session)
        assert window["statement_calls_total"] >= 1
        assert window["mean_statement_seconds"] > 0
        assert "statements" not in window["unseen"]
        session.execute("SELECT extensions.pg_stat_statements_reset()")
        record(session)
        assert "backwards" in recorded(session)[-1]["unseen"]["statements"]
        assert recorded(session)[-1]["mean_statement_seconds"] is None


def test_an_extension_that_was_not_updated_is_said_and_stops_nothing(database, binaries):
    if not binaries.has_library("pg_stat_statements"):
        pytest.skip("these binaries have no pg_stat_statements")
    with connect(ConnectionSettings.from_dsn(database)) as session:
        session.execute("CREATE EXTENSION pg_stat_statements SCHEMA public VERSION '1.8'")  # as pg_upgrade leaves it
        (lost,) = install_schema(session).lost
        assert "ALTER EXTENSION pg_stat_statements UPDATE" in lost
        record(session)
        record(session)
        (window,) = recorded(session)
        assert "ALTER EXTENSION pg_stat_statements UPDATE" in window["unseen"]["statements"]
        assert "database.commits_per_second" in window["rates"]
        session.execute("ALTER EXTENSION pg_stat_statements UPDATE")
        assert install_schema(session).lost == ()


@pytest.mark.parametrize("conforming", ["on", "off"])
def test_how_strings_are_read_does_not_change_which_counters_grow(session, conforming):
    session.execute(f"SET standard_conforming_strings = {conforming}")
    before, after = '{"a.b_total": 1, "a.subtotal": 1}', '{"a.b_total": 3, "a.subtotal": 3}'
    rates, _ = session.execute("SELECT * FROM genesis.growth(%s, %s, 1)", [before, after]).fetchone()
    assert rates == {"a.b_per_second": 2}


def test_without_the_extension_that_is_said(session):
    record(session)
    record(session)
    assert "not installed" in recorded(session)[0]["unseen"]["statements"]


def test_counters_that_went_backwards_are_left_out(session):
    record(session)
    session.execute(
        "UPDATE genesis.recorder SET server_values = server_values || "
        "jsonb_build_object('wal.records_total', (server_values ->> 'wal.records_total')::numeric + 1e9)"
    )
    record(session)
    (window,) = recorded(session)
    assert "backwards" in window["unseen"]["wal"]
    assert not [name for name in window["rates"] if name.startswith("wal.")]
    assert "database.commits_per_second" in window["rates"]


def test_a_clock_that_was_set_back_begins_anew(session):
    record(session)
    session.execute("UPDATE genesis.recorder SET taken_at = now() + interval '1 hour'")
    assert record(session) is None
    assert record(session) is not None


def test_its_names_are_those_of_the_collector(super_session):
    values = set(super_session.execute("SELECT genesis.server_values()").fetchone()[0])
    collector = StatisticsCollector(super_session, read_capabilities(super_session), None)
    assert values <= set(collector.snapshot().values)
    _, gauges = super_session.execute("SELECT * FROM genesis.activity_values()").fetchone()
    activity = collector.activity()
    assert {f"activity.{name}" for name in activity.__slots__} - {"activity.active_sessions_by_wait"} == set(gauges)


def test_configurations_have_the_same_identifier_as_in_python(session):
    names = ["work_mem", "jit", "random_page_cost", "wal_compression", "checkpoint_completion_target", "commit_delay"]
    kinds = {"integer": int, "real": float, "bool": lambda text: text == "on"}
    rows = session.execute("SELECT name, setting, vartype FROM pg_settings WHERE name = ANY (%s)", [names]).fetchall()
    ours = Configuration({name: kinds.get(kind, str)(setting) for name, setting, kind in rows})
    repository = Repository(session)
    repository.add_configuration(ours, origin="initial")
    assert session.execute("SELECT genesis.configuration_in_force()").fetchone() == (ours.id,)
    session.execute("SET work_mem = '6543kB'; SET random_page_cost = 1.15; SET jit = off")
    changed = ours.replaced({"work_mem": 6543, "random_page_cost": 1.15, "jit": False})
    assert session.execute("SELECT genesis.configuration_in_force()").fetchone() == (changed.id,)
    assert repository.configuration(changed.id) == changed


def test_a_configuration_that_changes_within_a_window_is_said(session):
    record(session)
    session.execute("SET work_mem = '6543kB'")
    record(session)
    assert "configuration" in recorded(session)[0]["unseen"]


def test_labels_are_added_as_text(session):
    record(session)
    for labels in ('{"phase": "nightly", "shift": 3}', None):
        session.execute("SELECT genesis.record_window(%s)", [labels])
    nightly, plain = Repository(session).windows()
    assert nightly.labels == {"run": "record_window", "phase": "nightly", "shift": "3"}
    assert plain.labels == {"run": "record_window", "phase": "recorded"}
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="labels are a JSON array"):
        session.execute("SELECT genesis.record_window('[1]')")


def test_what_it_recorded_is_read_as_windows(session):
    record(session)
    record(session)
    (window,) = Repository(session).windows(run="record_window")
    assert window.operations == {}
    assert window.rates["database.commits_per_second"] >= 0
    assert window.lag.total == 0


def durations():
    random = np.random.default_rng(7)
    powers = 1e-6 * 2.0 ** np.arange(0, 34)
    return np.concatenate(
        [[0.0, -1.0, 1e-7], powers, np.nextafter(powers, 0), np.nextafter(powers, 1e9), random.lognormal(-6, 3, 300)]
    )


def test_histograms_are_the_same_as_in_python(session):
    seconds = durations()
    first, counts, total, longest = session.execute(
        "SELECT (genesis.histogram_of(%s)).*", [seconds.tolist()]
    ).fetchone()
    stored = {"buckets": range(first, first + len(counts)), "counts": counts, "sum_seconds": total}
    assert Histogram.from_json({**stored, "max_seconds": longest}) == Histogram.of(seconds)
    assert session.execute(
        "SELECT genesis.histogram_total(genesis.histogram_of(%s))", [seconds.tolist()]
    ).fetchone() == (len(seconds),)


@pytest.mark.parametrize("quantile", [0.0, 0.001, 0.5, 0.95, 0.999, 1.0])
def test_quantiles_are_the_same_as_in_python(session, quantile):
    seconds = durations()
    parts = [seconds[:100], seconds[100:]]
    found = session.execute(
        "SELECT genesis.quantile_seconds(ARRAY[genesis.histogram_of(%s), genesis.histogram_of(%s)], %s)",
        [parts[0].tolist(), parts[1].tolist(), quantile],
    ).fetchone()[0]
    merged = Histogram.of(parts[0]) + Histogram.of(parts[1])
    assert found == pytest.approx(merged.quantile_seconds(quantile), rel=1e-12)


def test_of_nothing_there_is_no_quantile(session):
    empty = "genesis.histogram_of('{}')"
    assert session.execute(f"SELECT genesis.quantile_seconds(ARRAY[{empty}], 0.5)").fetchone() == (None,)
    assert session.execute(f"SELECT genesis.histogram_total({empty})").fetchone() == (0,)
