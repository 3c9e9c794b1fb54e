"""Forests in the database say what they say in Python: to 1e-9, for one row and for many, whatever is in it."""

import json
import math
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql
from psycopg.conninfo import make_conninfo

from ml_postgres_optimization.errors import TargetError
from ml_postgres_optimization.interfaces.workbench.stored import forest_record
from ml_postgres_optimization.models import error_forest, latency_forest
from ml_postgres_optimization.models.error_forest import Calibration, ErrorForest
from ml_postgres_optimization.models.features import ERROR_CLASSES, Table
from ml_postgres_optimization.models.forest import Forest, IntervalForest
from ml_postgres_optimization.models.latency_forest import LatencyForest
from ml_postgres_optimization.models.training import ForestSettings
from ml_postgres_optimization.retry.classification import ErrorClass
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings, connect
from ml_postgres_optimization.target.postgres.repository import Repository
from ml_postgres_optimization.target.postgres.schema import install_schema

NAMES = ("knob.shared_buffers", "latency.log_mean", *(f"knob.k{number:02}" for number in range(18)))
NOW = datetime.now(UTC)
# enough rows to calibrate an isotonic curve; trees of every size
WINDOWS, SETTINGS = 5_300, ForestSettings(trees=16, leaf_rows=3, rows_per_tree=500)
FREQUENT, LESS, RARE = ErrorClass.SERIALIZATION, ErrorClass.DEADLOCK, ErrorClass.TIMEOUT
HARSH = ["NaN", "-inf", "Infinity", None, 1e300, -1e300, 1e-320, 1e-46, 7.1e-46, 3.4028235e38, 3.4028235677973366e38]


@pytest.fixture(scope="module")
def dsn(server):
    """A database that the tests of this module share."""
    name = sql.Identifier(f"forests_{os.getpid()}")
    with psycopg.connect(server.dsn, autocommit=True) as superuser:
        superuser.execute(sql.SQL("CREATE DATABASE {}").format(name))
        yield make_conninfo(server.dsn, dbname=f"forests_{os.getpid()}")
        superuser.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


@pytest.fixture(scope="module")
def session(dsn):
    with connect(ConnectionSettings.from_dsn(dsn), statement_timeout_seconds=120) as connection:
        install_schema(connection)
        yield connection


@pytest.fixture(scope="module")
def models():
    """Forests that scikit-learn grew on windows with missing values; each class needs another calibration."""
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(WINDOWS, len(NAMES))).astype(np.float32)
    matrix[:, 5] = rng.integers(0, 3, WINDOWS)
    matrix[rng.random(matrix.shape) < 0.15] = np.nan
    log_mean = rng.normal(-6.0, 0.5, WINDOWS)
    matrix[:, 1] = log_mean
    seen = np.nan_to_num(matrix)
    times = 10.0 * np.arange(WINDOWS)
    errors = np.full((WINDOWS, len(ERROR_CLASSES)), 0.0, dtype=np.float32)
    for name, share in ((FREQUENT, 0.2), (LESS, 0.025), (RARE, 0.004)):
        errors[:, ERROR_CLASSES.index(name)] = rng.random(WINDOWS) < share * (1.0 + np.sign(seen[:, 3]))
    following = log_mean + 0.2 * seen[:, 2] * (seen[:, 5] > 0) + 0.1 * rng.normal(size=WINDOWS)
    table = Table(NAMES, matrix, times, times + 10.0, log_mean, following, np.zeros_like(errors), errors)
    return LatencyForest.fit(table, 1, SETTINGS), ErrorForest.fit(table, 1, SETTINGS)


@pytest.fixture
def predict(monkeypatch):
    """Predict by `LatencyForest.predict` or `ErrorForest.predict`, with features instead of an observation."""
    for module in (latency_forest, error_forest):
        monkeypatch.setattr(module, "features", lambda named: named)

    def predicted(model, named):
        floats = {name: math.nan if value is None else float(value) for name, value in named.items()}
        floats["latency.log_mean"] = floats.get("latency.log_mean", math.nan)
        told = model.predict(floats)
        if isinstance(model, LatencyForest):
            return [(told.value, told.low, told.high, told.level)]
        return [(str(name), one.value, one.low, one.high, one.level) for name, one in told.items()]

    return predicted


def store(session, *models):
    Repository(session).add_forests([forest_record(model, "test", NOW) for model in models])


def given_rows(forest, count, seed):
    """Return rows that meet the thresholds of a forest exactly, or next to them, and what is hardest to take."""
    rng = np.random.default_rng(seed)
    inner = np.flatnonzero((forest.left != np.arange(len(forest.left))) & np.isfinite(forest.threshold))
    made = []
    for number in range(count):
        row = {name: float(rng.normal()) for name in forest.names if rng.random() < 0.8} | {"moon.phase": 3.0}
        row["latency.log_mean"] = None if number % 7 == 0 else float(rng.normal(-6.0, 1.0))
        for node in rng.choice(inner, 6) if len(inner) else ():
            at = forest.threshold[node]
            near = [
                at,
                np.nextafter(at, np.inf),
                np.nextafter(at, -np.inf),
                np.nextafter(np.float32(at), np.float32(9)),
            ]
            row[forest.names[forest.feature[node]]] = float(near[rng.integers(4)])
        if number % 3 == 0:
            row[forest.names[rng.integers(len(forest.names))]] = HARSH[number // 3 % len(HARSH)]
        if not isinstance(row.get("latency.log_mean"), float) or abs(row["latency.log_mean"]) > 50:
            row["latency.log_mean"] = None
        made.append(row)
    return made


FUNCTIONS = {LatencyForest: "predict_latencies", ErrorForest: "predict_errors"}


def by_json(session, model, given):
    query = f"SELECT * FROM genesis.{FUNCTIONS[type(model)]}(%s::text[]::jsonb[])"
    return grouped(session.execute(query, [[json.dumps(row) for row in given]], binary=True), len(given))


def by_matrix(session, model, given):
    names = sorted({name for row in given for name in row} - {"knob.k03"}) if len(given) % 2 else list(NAMES)
    matrix = [[None if row.get(name) is None else float(row[name]) for name in names] for row in given]
    query = f"SELECT * FROM genesis.{FUNCTIONS[type(model)]}(%s::text[], %s::double precision[])"
    return grouped(session.execute(query, [names, matrix]), len(given))


def grouped(found, count):
    groups = [[] for _ in range(count)]
    for place, *told in found:
        groups[place - 1].append(tuple(told))
    return groups


def assert_same(found, wanted):
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert len(one) == len(other)
        for told, expected in zip(one, other, strict=True):
            assert [part for part in told if isinstance(part, str)] == [
                part for part in expected if isinstance(part, str)
            ]
            numbers = [part for part in expected if not isinstance(part, str)]
            assert [part for part in told if not isinstance(part, str)] == pytest.approx(numbers, abs=1e-9, rel=1e-9)


@pytest.mark.parametrize("count", [1, 40, 400])
def test_what_was_trained_predicts_the_same_in_sql(session, models, predict, count):
    store(session, *models)
    for model in models:
        given = given_rows(model.forest, count, count)
        wanted = [predict(model, row) for row in given]
        assert len({str(one) for one in wanted}) > count / 2
        assert_same(by_json(session, model, given), wanted)
        # without what is hard, by the way that takes nothing amiss
        plain = [{name: value for name, value in row.items() if not isinstance(value, str)} for row in given]
        assert_same(by_json(session, model, plain), [predict(model, row) for row in plain])
        assert_same(by_matrix(session, model, plain), [predict(model, named_in(row, plain)) for row in plain])


@pytest.mark.parametrize("count", [20, 150])
def test_a_matrix_may_lack_any_feature(session, models, predict, count):
    store(session, *models)
    names = ["knob.shared_buffers", "knob.k00"]
    matrix = [[float(number), None] for number in range(count)]
    for model in models:
        query = f"SELECT * FROM genesis.{FUNCTIONS[type(model)]}(%s::text[], %s::double precision[])"
        with session.transaction():
            session.execute("SET LOCAL extra_float_digits = -15")
            found = grouped(session.execute(query, [names, matrix], binary=True), count)
        assert_same(found, [predict(model, {names[0]: row[0]}) for row in matrix])


def named_in(row, given):
    """Return what the columns of `by_matrix` show of a row."""
    return {name: value for name, value in row.items() if not len(given) % 2 or name in NAMES} | (
        {"knob.k03": None} if len(given) % 2 else {}
    )


def test_every_calibration_was_among_them(models):
    methods = {name: curve.method for name, curve in models[1].calibrations.items()}
    assert methods == {FREQUENT: "isotonic", LESS: "sigmoid", RARE: "raw"}


def test_one_row_is_predicted_by_functions_of_one_row(session, models, predict):
    store(session, *models)
    latency, errors = models
    row = given_rows(latency.forest, 2, 3)[1]
    said = session.execute("SELECT (genesis.predict_latency_seconds(%s::jsonb)).*", [json.dumps(row)]).fetchall()
    assert_same([said], [predict(latency, row)])
    said = session.execute("SELECT * FROM genesis.predict_error_probability(%s)", [json.dumps(row)]).fetchall()
    wanted = predict(errors, row)
    assert_same([said], [wanted])
    by_class = "SELECT genesis.predict_error_probability(%s, %s)"
    for name, probability, *_ in wanted:
        assert session.execute(by_class, [json.dumps(row), name]).fetchone() == (
            pytest.approx(probability, abs=1e-9),
        )
    # unknown is not zero
    assert session.execute(by_class, [json.dumps(row), "resources"]).fetchone() == (None,)


def hand_made(names, nodes, roots=(0,)):
    """Return a forest of nodes ``(feature, threshold, left, right, missing_goes_left, value)``."""
    feature, threshold, left, right, missing, value = zip(*nodes, strict=True)
    own = np.arange(len(nodes))
    return Forest.of_arrays(
        names,
        {
            "roots": np.array(roots, dtype=np.int32),
            "feature": np.array(feature, dtype=np.int32),
            "threshold": np.array(threshold, dtype=np.float64),
            "left": np.where(np.array(left) < 0, own, left).astype(np.int32),
            "right": np.where(np.array(right) < 0, own, right).astype(np.int32),
            "missing_goes_left": np.array(missing, dtype=np.bool_),
            "value": np.array(value, dtype=np.float64).reshape(len(nodes), -1),
            "samples": 1 + own.astype(np.int32),
        },
    )


def leaf(*value):
    return (0, 0.0, -1, -1, False, value)


def with_forest(model, forest):
    return replace(model, changes=IntervalForest(forest, 2.5, 0.125, 0.9))


def test_a_tree_of_one_node_and_curves_of_one_corner(session, models, predict):
    latency = with_forest(models[0], hand_made(("knob.k00",), [leaf(0.25)]))
    one = hand_made(("knob.k00",), [leaf(0.25, 0.5), leaf(0.75, 0.5)], roots=(0, 1))
    flat = {FREQUENT: Calibration("raw", (0.3,), (0.2,)), RARE: Calibration("raw", (0.5, 0.6), (0.1, 0.9))}
    errors = replace(models[1], forest=one, calibrations=flat)
    nothing = replace(models[1], forest=hand_made(("knob.k00",), [leaf()]), calibrations={}, score={})
    for model in (latency, errors, nothing):
        store(session, model)
        for count in (1, 150):
            rows = [{"knob.k00": 1.0, "latency.log_mean": -5.0}] * count
            assert_same(by_json(session, model, rows), [predict(model, row) for row in rows])


HOSTILE = (
    "knob.'); DROP TABLE genesis.forests; --",
    'knob.$1 %s %1$L \\ " $$ \n',
    "knob." + "n" * 200,
    "knob.\\'x",
    "latency.log_mean",
)


def test_names_are_never_taken_for_sql(session, models, predict):
    nodes = [(number, 0.5, number + 1, len(HOSTILE) + 1, False, [0.0]) for number in range(len(HOSTILE))]
    deep = with_forest(models[0], hand_made(HOSTILE, [*nodes, leaf(0.5), leaf(-0.5)]))
    # a leaf that is shared makes no tree
    with pytest.raises(TargetError, match="forests_walk"):
        store(session, deep)
    nodes = []
    for number in range(len(HOSTILE)):
        nodes += [(number, 0.5, 2 * number + 2, 2 * number + 1, False, [0.0]), leaf(number / 10)]
    model = with_forest(models[0], hand_made(HOSTILE, [*nodes, leaf(0.9)]))
    store(session, model)
    rows = [{name: float(number % (place + 2) == 0) for place, name in enumerate(HOSTILE)} for number in range(120)]
    wanted = [predict(model, row) for row in rows]
    assert len({str(one) for one in wanted}) == 5
    assert_same(by_json(session, model, rows), wanted)
    assert_same(by_json(session, model, rows[:50]), wanted[:50])
    matrix = [[row[name] for name in HOSTILE] for row in rows]
    query = "SELECT * FROM genesis.predict_latencies(%s::text[], %s::double precision[])"
    assert_same(grouped(session.execute(query, [list(HOSTILE), matrix]), 120), wanted)


numbers = st.floats(width=64) | st.floats(width=32) | st.sampled_from([0.0, -0.0, 2.0**-149, 2.0**-150, 3.4028235e38])


@st.composite
def forests(draw):
    """Any forest: bushy or one long line, thresholds of any size."""
    nodes, roots = [], []

    def grow(depth):
        place = len(nodes)
        nodes.append(None)
        if depth == 0 or draw(st.integers(0, 3)) == 0:
            nodes[place] = leaf(draw(st.floats(-3.0, 3.0, allow_subnormal=False)))
        else:
            left = grow(depth - 1)
            right = grow(depth - 1)
            asked = draw(st.integers(0, 2))
            threshold = draw(numbers.filter(lambda number: not math.isnan(number)))
            nodes[place] = (asked, threshold, left, right, draw(st.booleans()), [0.0])
        return place

    for _ in range(draw(st.integers(1, 3))):
        roots.append(grow(4))
    return hand_made(("a", "b", "c"), nodes, roots)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(forests(), st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys("abc", numbers)), min_size=1, max_size=8))
def test_any_forest_predicts_the_same_for_any_row(session, models, predict, forest, rows):
    model = with_forest(models[0], forest)
    store(session, model)
    told = [{name: str(value) if not math.isfinite(value) else value for name, value in row.items()} for row in rows]
    wanted = [predict(model, {**row, "latency.log_mean": -6.0}) for row in rows]
    told = [{**row, "latency.log_mean": -6.0} for row in told]
    assert_same(by_json(session, model, told), wanted)
    many = math.ceil(101 / len(rows))
    assert_same(by_json(session, model, told * many), wanted * many)


def test_a_line_of_400_nodes_is_no_recursion_too_deep(session, models, predict):
    nodes = []
    for number in range(400):
        nodes += [(0, float(number), 2 * number + 1, 2 * number + 2, False, [0.0]), leaf(number / 1000)]
    model = with_forest(models[0], hand_made(("a",), [*nodes, leaf(0.9)]))
    store(session, model)
    rows = [{"a": 4.0 * number, "latency.log_mean": -6.0} for number in range(110)]
    assert_same(by_json(session, model, rows), [predict(model, row) for row in rows])


CORRUPT = {
    "back": "left_node[1] = 1",
    "itself on one side": "right_node[2] = 2",
    "outside": "right_node[1] = 1000000",
    "met twice": "left_node[1] = right_node[1]",
    "unknown child": "left_node[1] = NULL",
    "no such feature": "feature[1] = 99",
    "feature 0": "feature[1] = 0",
    "threshold": "threshold[1] = 'NaN'",
    "value": "value[1] = 'Infinity'",
    "unknown value": "value[1] = NULL",
    "samples": "samples[1] = 0",
    "unknown way": "missing_goes_left[1] = NULL",
    "no root": "roots = '{}'",
    "a root too many": "roots = roots || 2",
    "a root outside": "roots[1] = -1",
    "too short": "threshold = threshold[2:]",
    "counted from 0": "samples[0] = 1",
    "in two dimensions": "roots = ARRAY[roots]",
    "names": "feature_names = ARRAY[feature_names]",
    "factor": "factor = 'NaN'",
    "usual": "usual_log_seconds = '{1,2}'",
    "usual in disorder": "usual_log_seconds = '{3,2,1}'",
    "no interval": "floor = NULL",
    "level": "level = 1",
    "kind": "kind = 'weather'",
    "of another kind": "calibrations = '{}'",
}
CORRUPT_ERRORS = {
    "a curve too many": "calibrations = calibrations || calibrations[1]",
    "corners in disorder": "calibrations[1].raw = '{0.5,0.5}', calibrations[1].observed = '{0,1}'",
    "no probability": "calibrations[1].raw = '{0,1}', calibrations[1].observed = '{0,1.5}'",
    "no corner": "calibrations[1].raw = '{}', calibrations[1].observed = '{}'",
    "corners apart": "calibrations[1].raw = '{0.5}', calibrations[1].observed = '{0,1}'",
    "not a corner": "calibrations[1].raw = '{0,NaN}', calibrations[1].observed = '{0,1}'",
    "not a curve": "calibrations[1] = NULL",
    "the same class": "calibrations[1].error_class = calibrations[2].error_class",
    "factor": "factor = 1",
}


@pytest.mark.parametrize("kind", ["latency", "errors"])
def test_a_row_on_which_a_walk_would_go_wrong_is_refused(session, models, kind):
    store(session, *models)
    for what, change in (CORRUPT if kind == "latency" else CORRUPT_ERRORS).items():
        with pytest.raises((psycopg.errors.CheckViolation, psycopg.errors.NotNullViolation)):
            session.execute(f"UPDATE genesis.forests SET {change} WHERE kind = '{kind}'")
            pytest.fail(f"{what} was not refused")


def test_what_is_no_row_of_features_is_refused_with_what_to_do(session, models):
    store(session, models[0])
    for rows, complaint in (
        ("ARRAY['3']::jsonb[]", "not a JSON object"),
        ("ARRAY[NULL]::jsonb[]", "not a JSON object"),
        ("ARRAY[ARRAY['{}']]::jsonb[]", "a plain array"),
        ("ARRAY['{\"knob.k00\": true}']::jsonb[]", "feature knob.k00 is a JSON boolean"),
        ('array_fill(\'{"knob.k00": "much"}\'::jsonb, ARRAY[200])', "feature knob.k00 is a JSON string"),
        ("'{a,b}', '{{1},{2}}'", r"dimensions \[1:2\]\[1:1\], and there are 2 names"),
        ("'{a,b}', '{1,2}'", r"dimensions \[1:2\], and there are 2 names"),
    ):
        with pytest.raises(psycopg.Error, match=complaint) as refused:
            session.execute(f"SELECT * FROM genesis.predict_latencies({rows})")
        assert refused.value.diag.message_hint
    for nothing in ("NULL::jsonb[]", "'{}'::jsonb[]", "'{a}', '{}'"):
        assert session.execute(f"SELECT * FROM genesis.predict_latencies({nothing})").fetchall() == []
    assert session.execute("SELECT genesis.predict_latency_seconds(NULL)").fetchone() == (None,)


NO_ROWS = {
    "a text that reads like a number": ("""ARRAY['{"knob.k00": "3"}'::jsonb]""", "feature knob.k00 is a JSON string"),
    "a boolean": ("""ARRAY['{"knob.k00": true}'::jsonb]""", "feature knob.k00 is a JSON boolean"),
    "an object": ("""ARRAY['{"knob.k00": {"a": 1}}'::jsonb]""", "feature knob.k00 is a JSON object"),
    "a number": ("ARRAY['3'::jsonb]", "not a JSON object"),
    "counted from 0": (
        """('[0:%(last)s]=' || array_fill('{}'::jsonb, ARRAY[%(rows)s])::text)::jsonb[]""",
        "plain array",
    ),
    "a name twice": ("'{knob.k00,knob.k00}'::text[], array_fill(1.0::float8, ARRAY[%(rows)s, 2])", "each given once"),
    "no name": ("'{knob.k00,NULL}'::text[], array_fill(1.0::float8, ARRAY[%(rows)s, 2])", "each given once"),
    "names from 0": ("'[0:0]={knob.k00}'::text[], array_fill(1.0::float8, ARRAY[%(rows)s, 1])", "a plain array"),
    "numbers from 0": (
        "'{knob.k00}'::text[], array_fill(1.0::float8, ARRAY[%(rows)s, 1], ARRAY[0, 1])",
        "dimensions",
    ),
}
# array_fill makes many of one, whose walk and whose written query must refuse the same
MANY = "array_fill(({rows})[1], ARRAY[%(rows)s])"


@pytest.mark.parametrize("what", NO_ROWS)
def test_few_and_many_rows_refuse_the_same(session, models, what):
    rows, complaint = NO_ROWS[what]
    asked = hand_made(("knob.k00",), [(0, 0.5, 1, 2, False, [0.0]), leaf(0.25), leaf(0.5)])
    store(session, with_forest(models[0], asked))
    said = []
    for count in (2, 150):
        query = MANY.format(rows=rows) if rows.startswith("ARRAY") else rows
        with pytest.raises(psycopg.errors.DataError, match=complaint) as refused:
            session.execute(f"SELECT * FROM genesis.predict_latencies({query % {'rows': count, 'last': count - 1}})")
        said.append((refused.value.sqlstate, refused.value.diag.message_hint))
        assert refused.value.diag.message_hint
    assert said[0] == said[1]


def test_what_no_node_asks_for_does_no_harm_in_few_rows_or_many(session, models, predict):
    unasked = hand_made(("knob.k00", "knob.k01"), [(0, 0.5, 1, 2, False, [0.0]), leaf(0.25), leaf(0.5)])
    model = with_forest(models[0], unasked)
    store(session, model)
    for count in (2, 150):
        wanted = [predict(model, {"knob.k00": 0.25})] * count
        assert_same(by_json(session, model, [{"knob.k00": 0.25, "knob.k01": "much"}] * count), wanted)


def test_without_a_forest_it_is_said_how_to_come_by_one(session):
    with session.transaction(force_rollback=True):
        session.execute("DELETE FROM genesis.forests")
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="no forest of kind errors") as refused:
            session.execute("SELECT genesis.predict_error_probability('{}')")
        assert "genesis-pg train" in refused.value.diag.message_hint


def test_who_may_read_may_predict_whatever_the_session_is_set_to(session, dsn, models, predict):
    store(session, *models)
    latency = models[0]
    rows = given_rows(latency.forest, 120, 5)
    reader = f"reader_{os.getpid()}"
    session.execute(
        f"CREATE ROLE {reader} LOGIN; GRANT USAGE ON SCHEMA genesis TO {reader}; "
        f"GRANT SELECT ON ALL TABLES IN SCHEMA genesis TO {reader}; CREATE SCHEMA evil; "
        f"GRANT ALL ON SCHEMA evil TO {reader}; "
        "CREATE FUNCTION evil.abs(float8) RETURNS float8 LANGUAGE sql AS 'SELECT 0.0::float8'",
        prepare=False,
    )
    hostile = "-c extra_float_digits=-15 -c search_path=evil,pg_catalog -c jit_above_cost=0 -c bytea_output=escape"
    try:
        with psycopg.connect(make_conninfo(dsn, user=reader, options=hostile), autocommit=True) as connection:
            assert_same(by_json(connection, latency, rows), [predict(latency, row) for row in rows])
            connection.execute("SELECT * FROM genesis.forecasts")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("DELETE FROM genesis.forests")
    finally:
        session.execute(f"DROP OWNED BY {reader}; DROP SCHEMA evil CASCADE; DROP ROLE {reader}", prepare=False)


def test_nodes_are_shown_one_by_one(session, models):
    store(session, *models)
    forest = models[0].forest
    inner = forest.left != np.arange(len(forest.left))
    shown = session.execute("SELECT * FROM genesis.forest_nodes WHERE kind = 'latency' ORDER BY node").fetchall()
    assert len(shown) == len(forest.left)
    assert (
        sum(row[2] for row in shown) == len(forest.roots) and sum(row[3] is not None for row in shown) == inner.sum()
    )
    first = (forest.names[forest.feature[0]], forest.threshold[0], forest.left[0] + 1, forest.right[0] + 1)
    assert shown[0][3:7] == first


def test_each_server_of_a_repository_keeps_its_forests_and_one_of_them_predicts(session, models):
    latency, _ = models
    features = json.dumps({"latency.log_mean": -6.0})
    (own,) = session.execute("SELECT system_identifier::text FROM pg_control_system()").fetchone()

    def trained(server, usual, seconds=0.0):
        trained_at = NOW + timedelta(seconds=seconds)
        record = replace(forest_record(latency, f"of-{server}", trained_at), level=usual)
        Repository(session, server=server).add_forests([record])

    def chosen():
        (level,) = session.execute("SELECT level FROM genesis.predict_latency_seconds(%s)", [features]).fetchone()
        return level

    session.execute("DELETE FROM genesis.forests")
    trained(None, 0.5)
    trained("1", 0.6)
    assert session.execute("SELECT server FROM genesis.forests").fetchall() == [("1",)], "whose it was is not known"
    trained("2", 0.7, seconds=5.0)
    assert chosen() == 0.7, "the latest, where this server has none"
    trained("1", 0.61)
    trained(own, 0.8, seconds=-5.0)
    assert chosen() == 0.8
    try:
        session.execute("SET genesis.server = '1'")
        assert chosen() == 0.61
        session.execute("SET genesis.server = '3'")
        with pytest.raises(psycopg.Error, match="of server 3 is stored"):
            chosen()
    finally:
        session.execute("RESET genesis.server")
    assert chosen() == 0.8
    assert session.execute("SELECT count(DISTINCT server) FROM genesis.forest_nodes").fetchone() == (3,)
    session.execute("DELETE FROM genesis.forests")
