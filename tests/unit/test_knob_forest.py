"""The response surface: finds what a knob does, blames no bystander, and says how sure it is."""

import math

import numpy as np
import pytest
from synthetic_windows import STOCK, history

from ml_postgres_optimization.errors import NotEnoughData
from ml_postgres_optimization.knobs.configuration import CONCURRENCY
from ml_postgres_optimization.models.features import LoadContext
from ml_postgres_optimization.models.knob_forest import KnobForest
from ml_postgres_optimization.models.training import ForestSettings

SETTINGS = ForestSettings(trees=40, leaf_rows=3)


def designed(count, seed, effect, each=4):
    """Return windows over random configurations, so many in a row of `each`, and what they are."""
    rng = np.random.default_rng(seed)
    drawn = [
        STOCK.replaced(
            {
                "work_mem": int(2 ** rng.uniform(10, 16)),
                "jit": bool(rng.random() < 0.5),
                "wal_compression": str(rng.choice(["off", "lz4", "pglz"])),
                CONCURRENCY: int(rng.integers(2, 100)),
            }
        )
        for _ in range(count // each + 1)
    ]
    return history(
        count,
        seed,
        log_mean=lambda number, noise: effect(drawn[number // each]) + 0.05 * noise.normal(),
        configuration=lambda number: drawn[number // each],
    )


def effect(configuration):
    """Concurrency matters most, work_mem half as much, the rest not at all."""
    surplus = abs(math.log2(configuration[CONCURRENCY] / 8.0))
    return -6.0 + 0.4 * surplus - 0.08 * math.log2(configuration["work_mem"])


@pytest.fixture(scope="module")
def past():
    return designed(600, 1, effect)


@pytest.fixture(scope="module")
def model(past):
    return KnobForest.fit(past, 1, SETTINGS)


@pytest.fixture(scope="module")
def context(past):
    return LoadContext.of(past[0].window)


def test_knobs_explain_what_the_load_alone_cannot(model):
    assert model.score.beats_naive
    assert 0.8 <= model.score.coverage_ratio <= 0.98


def test_knobs_that_do_nothing_are_not_acted_on():
    idle = KnobForest.fit(designed(300, 2, lambda configuration: -6.0), 1, SETTINGS)
    assert not idle.score.beats_naive


def test_importance_ranks_knobs_by_what_they_do(model):
    importance = {name: mean for name, (mean, _) in model.importance().items()}
    assert sorted(importance, key=importance.get)[-2:] == ["work_mem", CONCURRENCY]
    assert abs(importance["jit"]) < 0.1 * importance[CONCURRENCY]


def test_nothing_is_said_of_a_knob_that_did_not_vary(model):
    assert set(model.importance()) == {"work_mem", "jit", "wal_compression", CONCURRENCY}


def test_what_a_knob_does_is_told_from_chance_by_its_standard_error(model):
    importance = model.importance()
    assert all(mean > 3 * error > 0 for mean, error in (importance[CONCURRENCY], importance["work_mem"]))
    assert all(abs(mean) < 3 * error for mean, error in (importance["jit"], importance["wal_compression"]))


def test_windows_of_one_stay_do_not_make_importance_surer():
    """The same stays with twice as many windows each know no more of the knobs."""
    short, long = (KnobForest.fit(designed(240 * each // 4, 7, effect, each), 1, SETTINGS) for each in (4, 8))
    errors = [model.importance()[CONCURRENCY][1] for model in (short, long)]
    assert errors[1] > 0.8 * errors[0]


def test_the_surface_finds_the_better_configuration(model, context):
    good = STOCK.replaced({CONCURRENCY: 8, "work_mem": 65536})
    bad = STOCK.replaced({CONCURRENCY: 95, "work_mem": 1024})
    better, worse = model.predict(good, context), model.predict(bad, context)
    assert better.value == pytest.approx(math.exp(effect(good)), rel=0.7)
    assert better.high < worse.low


def test_many_are_predicted_like_one(model, context):
    configurations = [STOCK.replaced({CONCURRENCY: number}) for number in range(2, 60)]
    mean, deviation = model.predict_many(configurations, context)
    assert mean.shape == deviation.shape == (58,)
    single = [math.log(model.predict(configuration, context).value) for configuration in configurations]
    assert mean == pytest.approx(single, abs=1e-12)
    assert (deviation > 0.0).any()
    assert [part.shape for part in model.predict_many([], context)] == [(0,), (0,)]


def test_trees_disagree_more_where_little_was_seen(context):
    narrow = designed(200, 3, effect)
    few = [one for one in narrow if one.configuration[CONCURRENCY] < 12 or one.configuration[CONCURRENCY] > 70]
    model = KnobForest.fit(few, 1, SETTINGS)
    seen = [STOCK.replaced({CONCURRENCY: number}) for number in (80, 85, 90)]
    unseen = [STOCK.replaced({CONCURRENCY: number}) for number in (35, 40, 45)]
    assert model.predict_many(unseen, context)[1].mean() > model.predict_many(seen, context)[1].mean()


def test_the_state_of_the_server_is_not_looked_at(model):
    assert all(name.startswith(("knob.", "mix.", "load.offered", "load.level")) for name in model.forest.names)


def test_one_configuration_is_not_enough_to_compare():
    with pytest.raises(NotEnoughData, match="needs 2 configurations to compare, and has seen 1"):
        KnobForest.fit(history(100, 1, log_mean=lambda number, rng: -6.0 + 0.1 * rng.normal()), 1, SETTINGS)


def test_windows_of_one_configuration_count_once():
    """A few long stays cannot show that knobs explain anything: the time of the stay explains it as well."""
    drawn = [STOCK.replaced({"work_mem": kilobytes}) for kilobytes in (4096, 1024, 4096, 1024)]
    stays = history(
        400,
        1,
        log_mean=lambda number, rng: -6.0 + 0.5 * (number // 100 % 2) + 0.05 * rng.normal(),
        configuration=lambda number: drawn[number // 100],
    )
    assert not KnobForest.fit(stays, 1, SETTINGS).score.beats_naive
