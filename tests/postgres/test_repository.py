"""What is put into schema genesis comes back as it was."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_postgres_optimization.errors import SchemaMissing, ServerUnreachable, TargetError, UsageError
from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.models.features import observations
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings, connect
from ml_postgres_optimization.target.postgres.repository import (
    JournalEntry,
    PredictionRecord,
    Repository,
    SlowerPart,
    TrialRecord,
)
from ml_postgres_optimization.target.postgres.schema import install_schema, uninstall_schema
from ml_postgres_optimization.target.seen import ConfigurationSeen
from ml_postgres_optimization.telemetry import Histogram, OperationWindow, StatementCounters, Window
from ml_postgres_optimization.telemetry.export import window_frame

START = datetime.now(UTC).replace(microsecond=123456) - timedelta(hours=1)
STOCK = Configuration({"work_mem": 4096, "jit": True, "random_page_cost": 4.0, "wal_compression": "off"})
SEEN = ConfigurationSeen(START, START, ())
TUNED = STOCK.replaced({"work_mem": 65536, "random_page_cost": 1.1})


@pytest.fixture
def session(owner):
    with connect(ConnectionSettings.from_dsn(owner)) as connection:
        install_schema(connection)
        yield connection


@pytest.fixture
def repository(session):
    return Repository(session)


def window(number=0, *, response_seconds=(0.001, 0.002), failed=0, **changes):
    started_at = START + timedelta(seconds=10 * number)
    times = Histogram.of(response_seconds)
    plain = Window(
        started_at=started_at,
        ended_at=started_at + timedelta(seconds=10),
        configuration_id=STOCK.id,
        labels={"run": "r1", "level": "HIGH", "phase": "baseline"},
        rates={"database.commits_per_second": 12.5},
        operations={"read": OperationWindow(times, times, failed)},
        errors={"40P01": failed} if failed else {},
    )
    return replace(plain, **changes)


names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
numbers = st.floats(allow_nan=False) | st.integers(-(2**53), 2**53)
durations = st.lists(st.floats(0, 1e4), max_size=20)
histograms = durations.map(Histogram.of)
moments = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
counters = st.builds(
    StatementCounters,
    *[st.integers(0, 2**60), st.floats(0, 1e12), st.integers(0, 2**60)],
    *[st.integers(0, 2**60)] * 3,
    st.floats(0, 1e18),
)
windows = st.builds(
    Window,
    started_at=moments,
    ended_at=moments,
    configuration_id=names,
    labels=st.dictionaries(names, names, max_size=3),
    rates=st.dictionaries(names, numbers, max_size=3),
    gauges=st.dictionaries(names, numbers, max_size=3),
    waits=st.dictionaries(names, numbers, max_size=3),
    operations=st.dictionaries(
        names, st.builds(OperationWindow, histograms, histograms, st.integers(0, 10**9)), max_size=3
    ),
    lag=histograms,
    errors=st.dictionaries(st.from_regex(r"[0-9A-Z]{5}", fullmatch=True), st.integers(1, 10**9), max_size=3),
    skipped_total=st.integers(0, 10**12),
    retried=st.dictionaries(st.sampled_from(["", "40001", "57P01"]), st.integers(1, 10**9), max_size=3),
    ambiguous_total=st.integers(0, 10**12),
    server=st.none() | names,
    statements=st.dictionaries(
        st.tuples(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
        counters,
        max_size=3,
    ),
    unseen=st.dictionaries(names, names, max_size=2),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(windows)
def test_a_window_comes_back_as_it_was(repository, session, given_window):
    session.execute("TRUNCATE genesis.metric_windows, genesis.operation_windows")
    repository.add(given_window)
    assert repository.windows() == [given_window]


def test_numbers_that_json_lacks_come_back(repository):
    repository.add(window(rates={"a": float("inf"), "b": float("-inf"), "c": float("nan")}))
    (stored,) = repository.windows()
    assert stored.rates["a"] == float("inf")
    assert stored.rates["b"] == float("-inf")
    assert stored.rates["c"] != stored.rates["c"]


def test_a_stream_gives_the_same_windows_a_few_at_a_time(repository):
    for number in range(120):
        repository.add(window(number))
    assert list(repository.stream()) == repository.windows()
    assert len(repository.windows()) == 120


def test_windows_of_several_servers_are_never_mixed(repository, session):
    ours, theirs = Repository(session, server="7001"), Repository(session, server="7002")
    repository.add(window(0))
    ours.add(window(1))
    # as long as nobody else is known, what nobody claimed is ours
    ours.record_configuration("7001", SEEN)
    assert [one.server for one in ours.windows()] == [None, "7001"]
    assert ours.unattributed_total() == 0
    theirs.add(window(1))
    theirs.add(window(2))
    theirs.record_configuration("7002", SEEN)
    for own, server, count in ((ours, "7001", 1), (theirs, "7002", 2)):
        assert [one.server for one in own.windows()] == [one.server for one in own.stream()] == [server] * count
        assert own.unattributed_total() == 1
    every = [None, "7001", "7002", "7002"]
    assert sorted((one.server for one in ours.stream(of_every_server=True)), key=str) == sorted(every, key=str)
    # adjacent, of runs of one name, and yet no pair
    known = {STOCK.id: STOCK}
    mixed = [one for one in observations(repository.windows(), known) if one.following is not None]
    assert [(one.window.server, one.following.server) for one in mixed] == [("7002", "7002")]
    frame = window_frame(ours.stream(of_every_server=True))
    assert set(frame["server"].dropna()) == {"7001", "7002"}


def test_a_window_of_an_older_version_was_never_retried(repository, session):
    repository.add(window(retried={"40001": 2}, ambiguous_total=1))
    session.execute("UPDATE genesis.metric_windows SET (retried, ambiguous_total) = (DEFAULT, DEFAULT)")
    assert repository.windows() == [window()]


def test_adding_a_window_again_changes_nothing(repository):
    for _ in range(2):
        repository.add(window())
    repository.add(window(labels={"run": "r1", "level": "HIGH", "phase": "baseline", "arm": "candidate"}))
    assert len(repository.windows()) == 2


def test_windows_come_in_the_order_of_time_and_by_what_is_asked(repository):
    for number in (3, 1, 2):
        repository.add(window(number))
    repository.add(window(4, labels={"run": "other"}))
    assert [stored.started_at for stored in repository.windows()] == [window(n).started_at for n in (1, 2, 3, 4)]
    assert [stored.labels["run"] for stored in repository.windows(run="other")] == ["other"]
    assert repository.windows(run="nobody") == []
    assert len(repository.windows(since=window(2).ended_at)) == 2
    assert [stored.started_at for stored in repository.windows(last=2)] == [
        window(3).started_at,
        window(4).started_at,
    ]
    assert len(repository.windows(run="r1", last=10)) == 3


def test_the_columns_say_what_the_window_says(repository, session):
    seconds = [0.001] * 98 + [0.5, 1.0]
    statements = {(1, 10, 5): StatementCounters(4, 2.0, 4, 0, 0, 0, 0.0)}
    repository.add(
        window(
            response_seconds=seconds, failed=3, waits={"CPU": 1.5, "IO": 0.5}, skipped_total=7, statements=statements
        )
    )
    row = session.execute(
        "SELECT run, level, phase, arm, operations_total, failed_total, skipped_total, throughput_per_second, "
        "active_sessions, commits_per_second, statement_calls_total, mean_statement_seconds, error_classes "
        "FROM genesis.metric_windows"
    ).fetchone()
    assert row == ("r1", "HIGH", "baseline", None, 100, 3, 7, 9.7, 2.0, 12.5, 4, 0.5, ["deadlock"])
    mean, p99 = session.execute(
        "SELECT mean_response_seconds, p99_response_seconds FROM genesis.metric_windows"
    ).fetchone()
    assert (mean, p99) == (pytest.approx(0.01598), pytest.approx(0.5, rel=0.004))
    quantile = session.execute(
        "SELECT genesis.quantile_seconds(ARRAY[response], 0.99) FROM genesis.operation_windows"
    )
    assert quantile.fetchone() == (pytest.approx(p99),)


def test_what_was_not_measured_is_null(repository, session):
    repository.add(window(operations={}, rates={}, waits={}))
    row = session.execute(
        "SELECT throughput_per_second, mean_response_seconds, p99_response_seconds, p99_lag_seconds, "
        "active_sessions, commits_per_second, mean_statement_seconds FROM genesis.metric_windows"
    ).fetchone()
    assert row == (None,) * 7


def test_configurations_come_back_with_their_identifier(repository):
    odd = Configuration(
        {"client.concurrency": 8, "a": 1e-300, "b": 2**62, "c": "off", "d": False, "e": 1e22, "f": -1}
    )
    for configuration in (STOCK, TUNED, odd, STOCK):
        repository.add_configuration(configuration, origin="test")
    known = repository.configurations()
    assert known == {each.id: each for each in (STOCK, TUNED, odd)}
    assert {key: value.id for key, value in known.items()} == {key: key for key in known}
    assert repository.configuration(odd.id) == odd
    assert isinstance(repository.configuration(STOCK.id)["jit"], bool)


def test_an_unknown_configuration_is_a_wrong_input(repository):
    with pytest.raises(UsageError, match="'nonesuch'"):
        repository.configuration("nonesuch")


def trial(**changes):
    plain = TrialRecord(
        id="20260101T000000-0001",
        started_at=START,
        ended_at=START + timedelta(minutes=5),
        baseline=STOCK,
        candidate=TUNED,
        origin="forest",
        reason="sorts spill to disk",
        outcome="promoted",
        ratio=0.8,
        ratio_low=0.75,
        ratio_high=0.86,
        verdict_reason="faster in every pair",
        pairs=((0.002, 0.0016, True), (0.0021, 0.0017, False)),
        figures={"baseline_mean_seconds": 0.002, "candidate_p99_seconds": 0.009},
        predicted_ratio=0.85,
        predicted_low=0.7,
        predicted_high=1.0,
        slower_parts=(SlowerPart("query 42", 0.03, 1.2, 1.1, 1.4), SlowerPart("update", 0.1, 1.3, 1.01, math.inf)),
    )
    return replace(plain, **changes)


def test_trials_come_back_as_they_were(repository):
    second = trial(
        id="20260101T000000-0002",
        started_at=START + timedelta(hours=1),
        pairs=(),
        figures={},
        outcome="aborted",
        ratio_high=float("inf"),
        predicted_ratio=None,
        predicted_low=None,
        predicted_high=None,
    )
    for each in (second, trial()):
        repository.add_trial(each)
    assert repository.trials() == [trial(), second]
    assert set(repository.configurations()) == {STOCK.id, TUNED.id}


def test_a_trial_is_replaced_by_one_of_the_same_identifier(repository):
    repository.add_trial(trial())
    changed = trial(outcome="rejected", pairs=((0.5, 0.6, False),))
    repository.add_trial(changed)
    assert repository.trials() == [changed]


def test_the_ledger_shows_gain_and_knobs(repository, session):
    repository.add_trial(trial())
    repository.add_trial(trial(id="x", ratio=float("nan"), ratio_low=0.0, ratio_high=float("inf")))
    rows = session.execute(
        "SELECT gain_percent, gain_percent_low, gain_percent_high, pairs, changed_knobs FROM genesis.trial_ledger "
        "WHERE id <> 'x'"
    ).fetchall()
    knobs = {"work_mem": [4096, 65536], "random_page_cost": [4.0, 1.1]}
    assert [tuple(map(str, row[:4])) for row in rows] == [("20.00", "14.00", "25.00", "2")]
    assert rows[0][4] == knobs
    assert session.execute("SELECT gain_percent FROM genesis.trial_ledger WHERE id = 'x'").fetchone() == (None,)


def prediction(kind="latency_seconds", value=0.002, number=0, **changes):
    plain = PredictionRecord(
        kind=kind,
        model_id="m1",
        made_at=window(number).started_at - timedelta(milliseconds=5),
        window_started_at=window(number).started_at + timedelta(milliseconds=40),
        value=value,
        low=value / 2,
        high=value * 2,
        run="r1",
        naive_value=value * 3,
    )
    return replace(plain, **changes)


def test_predictions_are_scored_by_the_window_that_happened(repository):
    repository.add(window(0, response_seconds=[0.003]))
    repository.add(window(0, response_seconds=[9.0], labels={"run": "other"}))
    repository.add(window(1, response_seconds=[0.009], failed=1))
    repository.add_prediction(prediction())
    repository.add_prediction(prediction(number=1))
    repository.add_prediction(prediction(number=5))  # its window never came
    assert repository.score_predictions() == 2
    assert repository.score_predictions() == 0
    (score,) = repository.prediction_scores()
    assert (score.kind, score.model_id, score.predictions, score.scored) == ("latency_seconds", "m1", 3, 2)
    assert score.mean_absolute_error == pytest.approx((0.001 + 0.007) / 2)
    assert score.naive_mean_absolute_error == pytest.approx((0.003 + 0.003) / 2)
    assert (score.coverage, score.level) == (0.5, pytest.approx(0.9))


def test_a_prediction_is_not_scored_by_a_window_under_another_configuration(repository):
    repository.add(window(0, response_seconds=[0.003]))
    in_force = window(0).configuration_id
    repository.add_prediction(prediction(configuration_id="another"))
    assert repository.score_predictions() == 0
    repository.add_prediction(prediction(configuration_id=in_force))
    assert repository.score_predictions() == 1


def test_probabilities_are_scored_by_what_failed(repository):
    repository.add(window(0))
    repository.add(window(1, failed=1))
    for kind in ("error_probability", "error_probability:deadlock", "error_probability:timeout"):
        for number in (0, 1):
            repository.add_prediction(prediction(kind, 0.25, number))
    assert repository.score_predictions() == 6
    brier = {score.kind: score.mean_squared_error for score in repository.prediction_scores()}
    assert brier == {
        "error_probability": pytest.approx((0.25**2 + 0.75**2) / 2),
        "error_probability:deadlock": pytest.approx((0.25**2 + 0.75**2) / 2),
        "error_probability:timeout": pytest.approx(0.25**2),
    }


def test_statement_texts_are_kept_once_and_join_the_windows(repository, session):
    key, counters = (-(2**63), 10, 5), StatementCounters(4, 2.0, 8, 1, 2, 3, 99.0)
    repository.add_statement_texts({key[0]: "SELECT $1", 7: "UPDATE t SET a = $1"})
    repository.add_statement_texts({key[0]: "something else", 8: "SELECT 100 % $1"})
    assert repository.statement_texts() == {key[0]: "SELECT $1", 7: "UPDATE t SET a = $1", 8: "SELECT 100 % $1"}
    repository.add_statement_texts({})
    repository.add(window(statements={key: counters}))
    row = session.execute(
        "SELECT queryid, user_oid, database_oid, calls_total, execution_seconds_total, rows_total, "
        "shared_blocks_read_total, shared_blocks_hit_total, temp_blocks_written_total, wal_bytes_total, statement "
        "FROM genesis.statement_windows"
    ).fetchone()
    assert row == (*key, 4, 2.0, 8, 1, 2, 3, 99.0, "SELECT $1")


def test_the_journal_is_mirrored_in_order(repository):
    first, *more = [
        JournalEntry(START - timedelta(hours=number), {"kind": "intent", "n": number}) for number in (1, 2, 3)
    ]
    repository.mirror_journal("7001", [first])
    repository.mirror_journal("7002", [first])
    repository.mirror_journal("7001", [first, *more])
    repository.mirror_journal("7001", [])
    assert repository.journal("7001") == [first, *more], "none twice"
    assert repository.journal("7002") == [first]


def test_without_the_schema_every_method_says_so(owner):
    with connect(ConnectionSettings.from_dsn(owner)) as connection:
        repository = Repository(connection)
        for doing in (
            repository.require,
            lambda: repository.add(window()),
            repository.windows,
            lambda: repository.add_configuration(STOCK, origin="x"),
            repository.configurations,
            lambda: repository.add_trial(trial()),
            repository.trials,
            lambda: repository.add_prediction(prediction()),
            repository.score_predictions,
            repository.prediction_scores,
            lambda: repository.add_statement_texts({1: "x"}),
            repository.statement_texts,
            lambda: repository.mirror_journal("x", [JournalEntry(START, {})]),
            lambda: repository.journal("x"),
        ):
            with pytest.raises(SchemaMissing, match="genesis-pg setup"):
                doing()


def test_a_schema_that_goes_away_is_noticed(repository, session):
    repository.add(window())
    uninstall_schema(session)
    with pytest.raises(SchemaMissing):
        repository.add(window(1))


def test_a_lost_connection_is_never_silent(repository, session, owner, database):
    repository.add(window())
    with psycopg.connect(database, autocommit=True) as superuser:
        superuser.execute("SELECT pg_terminate_backend(%s)", [session.info.backend_pid])
    with pytest.raises(ServerUnreachable):
        repository.add(window(1))
    with connect(ConnectionSettings.from_dsn(owner)) as fresh:
        again = Repository(fresh)
        again.add(window(1))
        assert len(again.windows()) == 2


def test_a_window_is_whole_or_not_there(repository, session):
    session.execute("ALTER TABLE genesis.operation_windows ADD CONSTRAINT none CHECK (kind <> 'read') NOT VALID")
    with pytest.raises(TargetError, match=r'did not let us record a window: .*"none".* \(SQLSTATE 23514\)'):
        repository.add(window())
    assert repository.windows() == []


def test_it_commits_on_a_connection_without_autocommit_too(owner):
    settings = ConnectionSettings.from_dsn(owner)
    with connect(settings) as connection:
        install_schema(connection)
    with connect(settings, autocommit=False) as connection:
        Repository(connection).add(window())
        connection.rollback()
    with connect(settings) as connection:
        assert len(Repository(connection).windows()) == 1


def test_partitions_are_made_when_their_day_comes(repository, session):
    repository.add(window())
    session.execute("UPDATE genesis.settings SET partitions_ahead = 9")
    repository.add(window(1))  # the same day: nobody asks
    far = f"SELECT to_regclass('genesis.predictions_p{datetime.now(UTC) + timedelta(days=9):%Y%m%d}')"
    assert session.execute(far).fetchone() == (None,)
    repository.add(window(1, started_at=START + timedelta(days=1), ended_at=START + timedelta(days=1, seconds=10)))
    assert session.execute(far).fetchone() != (None,)


def test_partitions_that_could_not_be_made_are_made_at_the_next_window(repository, session, owner):
    session.execute("UPDATE genesis.settings SET partitions_ahead = 9")
    far = f"SELECT to_regclass('genesis.predictions_p{datetime.now(UTC) + timedelta(days=9):%Y%m%d}')"
    with psycopg.connect(owner) as other:
        other.execute("SELECT FROM genesis.metric_windows, genesis.operation_windows, genesis.predictions")
        repository.add(window())
        assert session.execute(far).fetchone() == (None,)
    repository.add(window(1))
    assert session.execute(far).fetchone() != (None,)


def test_recent_metrics_are_in_milliseconds_and_of_the_last_hour(repository, session):
    now = datetime.now(UTC)
    for ago in (timedelta(minutes=5), timedelta(minutes=65)):
        repository.add(window(response_seconds=[0.004] * 50, started_at=now - ago, ended_at=now - ago))
    rows = session.execute(
        "SELECT mean_ms::float, operations, mean_measured_by FROM genesis.recent_metrics"
    ).fetchall()
    assert rows == [(4.0, 50, "operations")]


def test_the_cube_adds_up(repository, session):
    noon = START.replace(hour=12, minute=0)
    for hour, level, kind, seconds in (
        (0, "HIGH", "read", [0.001] * 10),
        (0, "HIGH", "write", [0.004] * 30),
        (1, "MEDIUM", "read", [0.002] * 20),
    ):
        times = Histogram.of(seconds)
        at = noon + timedelta(hours=hour)
        repository.add(
            window(
                started_at=at,
                ended_at=at + timedelta(seconds=10),
                labels={"run": "r1", "level": level, "kind": kind},
                operations={kind: OperationWindow(times, times, 1)},
            )
        )
    cells = {
        row[:4]: row[4:]
        for row in session.execute(
            "SELECT hour_of_day, level, operation, configuration_id, dimensions, windows, operations, failed, "
            "mean_ms::float, worst_p99_ms::float FROM genesis.metrics_by_dimension"
        )
    }
    every = "(all)"
    assert cells[every, every, every, every] == (0, 3, 60, 3, pytest.approx(2.833), pytest.approx(4, rel=0.004))
    assert cells["12", every, every, every][:3] == (1, 2, 40)
    assert cells[every, every, "read", every] == (1, 2, 30, 2, pytest.approx(1.667), pytest.approx(2, rel=0.004))
    assert cells["13", "MEDIUM", "read", STOCK.id][:3] == (4, 1, 20)
    assert (("12", "MEDIUM", every, every)) not in cells
    full = [cell for key, cell in cells.items() if every not in key]
    assert sum(cell[2] for cell in full) == 60


def test_configurations_are_compared_with_the_first_of_the_run(repository, session):
    for configuration in (STOCK, TUNED):
        repository.add_configuration(configuration, origin="test")
    repository.add(window(0, response_seconds=[0.004] * 10))
    repository.add(window(1, response_seconds=[0.001] * 10, configuration_id=TUNED.id))
    rows = session.execute(
        "SELECT configuration_id, base_configuration_id, mean_ms::float, mean_ratio_to_base::float, "
        "knobs_unlike_base FROM genesis.configuration_effects ORDER BY mean_ms"
    ).fetchall()
    assert rows == [
        (TUNED.id, STOCK.id, 1.0, 0.25, {"work_mem": 65536, "random_page_cost": 1.1}),
        (STOCK.id, STOCK.id, 4.0, 1.0, None),
    ]
