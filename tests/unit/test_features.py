"""Features: documented, known at the end of the window, tolerant of what was not seen."""

import copy
import math
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_windows import START, STOCK, history, make_window

from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.models.features import (
    FEATURES,
    TELEMETRY,
    LoadContext,
    describe,
    encode_knob,
    encode_text,
    features,
)
from ml_postgres_optimization.models.features.registry import OPERATION_KINDS
from ml_postgres_optimization.models.observation import Observation
from ml_postgres_optimization.retry.classification import ErrorClass
from ml_postgres_optimization.telemetry import (
    LatencySample,
    SampleBatch,
    Snapshot,
    StatementCounters,
    Window,
    between,
)
from ml_postgres_optimization.workload.operation import OperationKind

EMPTY = Window(START, START + timedelta(seconds=10), STOCK.id)


@pytest.fixture
def observation():
    return history(4, 1, log_mean=lambda number, rng: -6.0 + 0.1 * number)[1]


def same(first, second):
    return first.keys() == second.keys() and all(
        first[name] == second[name] or (math.isnan(first[name]) and math.isnan(second[name])) for name in first
    )


def test_every_produced_name_is_documented_and_every_documented_name_is_produced(observation):
    named = features(observation)
    assert all(describe(name) for name in named)
    fixed = {name for name in FEATURES if "<" not in name}
    assert fixed == {name for name in named if not name.startswith("knob.")}
    assert {name.removeprefix("knob.") for name in named if name.startswith("knob.")} == set(STOCK)


def test_every_description_is_a_sentence_of_its_own():
    assert len(set(FEATURES.values())) == len(FEATURES)
    assert all(len(text.split()) >= 2 for text in FEATURES.values())


def test_an_unknown_name_has_no_description():
    assert describe("moon.phase") is None
    assert describe("knob.") is None


def test_nothing_of_the_following_window_is_seen(observation):
    assert observation.following is not None
    assert same(features(observation), features(replace(observation, following=None)))


def test_the_input_is_not_changed(observation):
    before = copy.deepcopy(observation)
    features(observation)
    assert observation == before


def test_the_order_of_a_windows_mappings_does_not_matter(observation):
    window = observation.window
    turned = replace(
        window,
        **{
            part: dict(reversed(getattr(window, part).items()))
            for part in ("rates", "gauges", "waits", "operations", "labels", "errors")
        },
    )
    other = features(replace(observation, window=turned))
    assert other == pytest.approx(features(observation), nan_ok=True)


def test_an_empty_window_gives_nan_and_never_zero_for_what_was_not_seen():
    named = features(Observation(Configuration({}), EMPTY))
    seen = {name: value for name, value in named.items() if not math.isnan(value)}
    assert set(seen) == {"time.day_sin", "time.day_cos", "time.window_seconds", "latency.is_timed_by_us"}


def test_a_window_of_no_length_gives_no_rate():
    window = replace(make_window(0, mean_seconds=0.01, rng=np.random.default_rng(1)), ended_at=START)
    assert math.isnan(features(Observation(STOCK, window))["load.offered_per_second"])


def test_figures_of_a_known_window():
    window = make_window(
        0, mean_seconds=0.01, rng=np.random.default_rng(1), errors={"40P01": 2, "40001": 4}, rate=100.0
    )
    named = features(Observation(STOCK, replace(window, skipped_total=50)))
    total = window.operations_total
    assert named["latency.log_mean"] == pytest.approx(math.log(0.01))
    assert named["latency.log_service_mean"] == pytest.approx(math.log(0.007))
    assert named["errors.deadlock_ratio"] == pytest.approx(2 / total)
    assert named["errors.failed_ratio"] == pytest.approx(6 / total)
    assert named["errors.timeout_ratio"] == 0.0
    assert named["load.offered_per_second"] == pytest.approx((total + 50) / 10)
    assert named["load.throughput_per_second"] == pytest.approx((total - 6) / 10)
    assert named["load.busy_ratio"] == pytest.approx((total - 6) / 10 * 0.007 / 16)
    assert named["mix.read"] == pytest.approx(0.45, abs=0.01)
    assert named["mix.join"] == 0.0
    assert named["knob.work_mem"] == pytest.approx(math.log2(4097))
    assert (named["knob.jit"], named["knob.wal_compression"]) == (1.0, 0.0)


def test_the_offer_does_not_depend_on_how_the_server_coped_with_it():
    window = make_window(0, mean_seconds=0.01, rng=np.random.default_rng(1))
    finished = SampleBatch.of([LatencySample("read", 0.0, 0.0, 1.0)] * 300)
    snapshots = [Snapshot(START + timedelta(seconds=at), at, {}) for at in (0.0, 10.0)]
    batches = [replace(finished, due_total=1_000)]
    overloaded = between(*snapshots, configuration_id=STOCK.id, labels=window.labels, batches=batches)
    assert overloaded.operations_total == 300
    assert features(Observation(STOCK, overloaded))["load.offered_per_second"] == pytest.approx(100.0)
    assert LoadContext.of(overloaded).offered_per_second == pytest.approx(100.0)


def test_trends_compare_with_the_window_before(observation):
    named = features(observation)
    assert named["trend.log_mean"] == pytest.approx(0.1, abs=1e-3)
    assert named["previous.log_mean"] == pytest.approx(-6.0, abs=1e-3)
    assert math.isnan(features(replace(observation, previous=None))["trend.log_mean"])


def test_statements_stand_in_where_operations_are_not_ours():
    statements = {(1, 1, 1): StatementCounters(100, 2.0, 0, 0, 0, 0, 0.0)}
    rates = {"database.commits_per_second": 9.0, "database.rollbacks_per_second": 1.0}
    named = features(Observation(STOCK, replace(EMPTY, statements=statements, rates=rates)))
    assert named["latency.log_mean"] == pytest.approx(math.log(0.02))
    assert named["latency.is_timed_by_us"] == 0.0
    assert (named["load.throughput_per_second"], named["load.offered_per_second"]) == (9.0, 10.0)


def test_a_closed_loop_has_no_offered_rate():
    window = make_window(0, mean_seconds=0.01, rng=np.random.default_rng(1), labels={"loop": "closed"})
    assert math.isnan(LoadContext.of(window).offered_per_second)
    assert not math.isnan(features(Observation(STOCK, window))["load.throughput_per_second"])


def test_the_kinds_of_operations_are_those_of_the_workload():
    assert set(OPERATION_KINDS) == {str(kind) for kind in OperationKind}


def test_time_of_day_goes_round_in_24_hours():
    noon = replace(EMPTY, started_at=START + timedelta(hours=11), ended_at=START + timedelta(hours=12))
    named = features(Observation(STOCK, noon))
    assert (named["time.day_sin"], named["time.day_cos"]) == pytest.approx((0.0, -1.0), abs=1e-9)


numbers = st.one_of(st.integers(-(2**31), 2**31), st.floats(-1e9, 1e9))


@given(numbers, numbers)
def test_the_encoding_of_a_number_keeps_its_order(one, other):
    assert (one < other) <= (encode_knob(one) <= encode_knob(other))
    if abs(one - other) > 1e-6 * max(1.0, abs(one), abs(other)):
        assert (one < other) == (encode_knob(one) < encode_knob(other))


@given(st.text())
def test_a_text_is_a_fraction(text):
    assert 0.0 <= encode_text(text) < 1.0


def test_the_choices_of_enums_stay_apart():
    choices = ["pglz", "lz4", "zstd", "try", "remote_write", "local", "remote_apply", "auto", "force_generic_plan"]
    encoded = [encode_knob(choice) for choice in choices]
    assert len({round(value, 4) for value in [*encoded, 0.0, 1.0]}) == len(choices) + 2


def test_the_telemetry_has_a_source_and_a_name():
    assert all(name.count(".") == 1 for name in TELEMETRY)
    assert {name for name in FEATURES if name.startswith("errors.")} >= {
        f"errors.{name}_ratio" for name in ErrorClass
    }
