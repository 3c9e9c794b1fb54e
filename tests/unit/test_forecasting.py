"""A forecast in use sees what the models were trained on."""

from types import SimpleNamespace

import numpy as np
import pytest
from synthetic_windows import STOCK, make_window

from ml_postgres_optimization.interfaces.workbench import forecasting
from ml_postgres_optimization.models.latency_forest import LatencyForest
from ml_postgres_optimization.models.observation import Prediction
from ml_postgres_optimization.telemetry import VirtualClock

OTHER = STOCK.replaced({"work_mem": 8192})


class Seen:
    """A model that remembers what it was asked about."""

    def __init__(self):
        self.observations = []

    def predict(self, observation):
        self.observations.append(observation)
        return Prediction(0.01, 0.005, 0.02)


@pytest.fixture
def model(monkeypatch):
    made = Seen()
    loaded = SimpleNamespace(model=made, path=SimpleNamespace(stem="latency-1"))
    monkeypatch.setattr(forecasting, "load_forest", lambda _, kind: loaded if kind is LatencyForest else None)
    return made


def window(number, configuration=STOCK, **labels):
    rng = np.random.default_rng(number)
    return make_window(number, mean_seconds=0.01, rng=rng, configuration=configuration, labels=labels)


@pytest.mark.parametrize(
    ("first", "second", "configuration", "is_known"),
    [
        (window(0), window(1), STOCK, True),
        (window(0), window(1, OTHER), OTHER, True),
        (window(0), window(3), STOCK, False),
        (window(0, run="r0"), window(1), STOCK, False),
    ],
    ids=["adjacent", "after a switch", "after a gap", "of another run"],
)
def test_the_window_before_is_known_only_where_training_would_have_joined_it(
    model, first, second, configuration, is_known
):
    forecaster = forecasting.Forecaster(SimpleNamespace(clock=VirtualClock()))
    list(forecaster.predictions(first, STOCK))
    (prediction,) = forecaster.predictions(second, configuration)
    assert model.observations[0].previous is None
    asked = model.observations[1]
    assert (asked.configuration, asked.window, asked.following) == (configuration, second, None)
    assert asked.previous is (first if is_known else None)
    assert prediction.window_started_at == second.ended_at


def test_an_interval_widens_after_a_miss_and_narrows_while_it_holds(model):
    forecaster = forecasting.Forecaster(SimpleNamespace(clock=VirtualClock()))
    slow = make_window(1, mean_seconds=0.05, rng=np.random.default_rng(1), configuration=STOCK)
    widths = []
    # misses; then nothing is learned from what a gap, another configuration or no operation parts from its forecast
    for one, configuration in (
        (window(0), STOCK),
        (slow, STOCK),
        (window(2), STOCK),
        (window(4), STOCK),
        (window(5, OTHER), OTHER),
        (window(6, OTHER), OTHER),
    ):
        (record,) = forecaster.predictions(one, configuration)
        widths.append(np.log(record.high / record.low) / np.log(4.0))
        assert record.value == 0.01
    missed, held = np.exp(0.09), np.exp(-0.01)
    assert np.allclose(widths, np.cumprod([1.0, missed, held, 1.0, 1.0, held]))


@pytest.mark.parametrize("beats_naive", [True, False])
def test_only_a_forecast_that_beats_the_naive_one_is_given_to_be_acted_on(model, beats_naive):
    model.score = SimpleNamespace(beats_naive=beats_naive)
    forecaster = forecasting.Forecaster(SimpleNamespace(clock=VirtualClock()))
    first, second = window(0), window(1)
    assert forecaster.next_mean(first) is None
    (record,) = forecaster.predictions(first, STOCK)
    given = forecaster.next_mean(first)
    assert (given is not None and given.value == record.value) is beats_naive
    assert forecaster.next_mean(second) is None, "of another window than the last"
