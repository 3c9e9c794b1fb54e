"""What every forest must satisfy, whatever it predicts."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
from synthetic_windows import STOCK, history

from ml_postgres_optimization.errors import NotEnoughData
from ml_postgres_optimization.knobs.configuration import CONCURRENCY, Configuration
from ml_postgres_optimization.models.artifact import load_model, save_model
from ml_postgres_optimization.models.error_forest import ErrorForest
from ml_postgres_optimization.models.features import LoadContext, Table
from ml_postgres_optimization.models.knob_forest import KnobForest
from ml_postgres_optimization.models.latency_forest import LatencyForest
from ml_postgres_optimization.models.observation import Observation
from ml_postgres_optimization.models.training import ForestSettings
from ml_postgres_optimization.telemetry import Window

SETTINGS = ForestSettings(trees=15)
FORESTS = [LatencyForest, ErrorForest, KnobForest]
_CONFIGURATIONS = [
    STOCK.replaced({"work_mem": 2**exponent, CONCURRENCY: 4 * exponent, "wal_compression": choice})
    for exponent, choice in zip(range(10, 16), ["off", "lz4", "pglz", "off", "lz4", "zstd"], strict=True)
]


def configuration(number):
    return _CONFIGURATIONS[(number // 5) % len(_CONFIGURATIONS)]


def log_mean(number, rng):
    return -6.0 - 0.1 * math.log2(configuration(number)["work_mem"]) + 0.1 * rng.normal()


def sqlstates(number, rng):
    return {"40P01": int(rng.random() < 0.3), "57014": int(rng.random() < 0.5 * (number % 2))}


@pytest.fixture(scope="module")
def past():
    return history(160, 5, log_mean=log_mean, sqlstates=sqlstates, configuration=configuration)


@pytest.fixture(scope="module", params=FORESTS, ids=lambda forest: forest.kind)
def model(request, past):
    return request.param.fit(past, 1, SETTINGS)


def predict(model, observation):
    """Return every figure of a prediction."""
    if isinstance(model, KnobForest):
        predictions = [model.predict(observation.configuration, LoadContext.of(observation.window))]
    elif isinstance(model, ErrorForest):
        predictions = list(model.predict(observation).values())
    else:
        predictions = [model.predict(observation)]
    return [figure for one in predictions for figure in (one.value, one.low, one.high, one.level)]


def test_a_seed_repeats_everything(model, past):
    again = type(model).fit(past, 1, SETTINGS)
    assert again.facts() == model.facts()
    assert all(predict(again, one) == predict(model, one) for one in past[:5])


def test_another_seed_gives_another_forest(model, past):
    assert type(model).fit(past, 2, SETTINGS).facts() != model.facts()


def test_the_order_of_observations_does_not_matter(model, past):
    shuffled = [past[number] for number in np.random.default_rng(1).permutation(len(past))]
    assert type(model).fit(shuffled, 1, SETTINGS).facts() == model.facts()


def test_a_table_teaches_the_same_as_its_observations(model, past):
    assert type(model).fit(Table.of(past), 1, SETTINGS).facts() == model.facts()


def test_the_order_of_features_does_not_matter(model, past):
    def turned(observation):
        window = observation.window
        parts = ("rates", "gauges", "waits", "operations", "labels", "errors")
        reversed_parts = {part: dict(reversed(getattr(window, part).items())) for part in parts}
        return replace(observation, window=replace(window, **reversed_parts))

    for observation in past[:5]:
        assert predict(model, turned(observation)) == pytest.approx(predict(model, observation), abs=1e-12)


def test_inputs_are_not_changed(past):
    few = past[:80]
    before = copy.deepcopy(few)
    table = Table.of(few)
    digest = table.digest
    for forest in FORESTS:
        model = forest.fit(few, 1, SETTINGS)
        forest.fit(table, 1, SETTINGS)
        predict(model, few[0])
    assert few == before
    assert table.digest == digest


def test_a_fitted_forest_is_frozen(model):
    with pytest.raises(AttributeError):
        model.data_digest = "other"


def test_what_was_stored_predicts_the_same(model, past, tmp_path):
    save_model(model, tmp_path)
    stored = load_model(type(model), tmp_path)
    assert stored.refused == ()
    assert stored.model.facts() == model.facts()
    for observation in past[:20]:
        assert predict(stored.model, observation) == pytest.approx(predict(model, observation), abs=1e-12)


def test_predictions_lie_in_their_interval_and_range(model, past):
    for observation in past:
        value, low, high, level = predict(model, observation)[:4]
        assert 0.0 < low <= value <= high
        assert level == 0.9
        assert high <= 1.0 or not isinstance(model, ErrorForest)


def test_what_was_not_seen_is_no_obstacle(model, past):
    window = past[0].window
    empty = Window(window.started_at, window.ended_at, window.configuration_id)
    assert all(math.isfinite(figure) for figure in predict(model, Observation(Configuration({}), empty)))


def test_a_knob_that_was_never_seen_is_no_obstacle(model, past):
    other = replace(past[0], configuration=past[0].configuration.replaced({"new_knob": 3}))
    assert predict(model, other) == predict(model, past[0])


@pytest.mark.parametrize("forest", FORESTS, ids=lambda forest: forest.kind)
@pytest.mark.parametrize("count", [0, 1, 40])
def test_too_few_windows_are_counted_and_refused(forest, count, past):
    seen = count if forest is KnobForest else int(np.isfinite(Table.of(past[:count]).next_log_mean).sum())
    with pytest.raises(NotEnoughData, match=f"needs 60 windows to learn from, and has seen {seen}"):
        forest.fit(past[:count], 1, SETTINGS)


def test_windows_without_operations_teach_nothing_and_are_counted_as_none(past):
    empty = [replace(one, window=replace(one.window, operations={}), following=None, previous=None) for one in past]
    for forest in FORESTS:
        with pytest.raises(NotEnoughData, match="has seen 0"):
            forest.fit(empty, 1, SETTINGS)
