"""Knobs, parameters and points of the unit cube stand for each other."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from ml_postgres_optimization.knobs.catalogue import load_catalogue
from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.knobs.knob import Knob, Scope
from ml_postgres_optimization.tuning import SearchSpace
from ml_postgres_optimization.tuning.search.encoding import axis_of

SPACE = SearchSpace.of(load_catalogue())
NOTHING = Configuration({})
POINTS = st.lists(st.floats(0, 1), min_size=len(SPACE.axes), max_size=len(SPACE.axes))
NUMBERS = st.one_of(
    st.tuples(st.integers(-1000, 1000), st.integers(1, 10**6)).map(lambda pair: IntDistribution(pair[0], sum(pair))),
    st.tuples(st.integers(1, 1000), st.integers(1, 10**7)).map(
        lambda pair: IntDistribution(pair[0], sum(pair), log=True)
    ),
    st.tuples(st.floats(-100, 100), st.floats(0.1, 1e6)).map(lambda pair: FloatDistribution(pair[0], sum(pair))),
    st.tuples(st.floats(1e-6, 100), st.floats(0.1, 1e6)).map(
        lambda pair: FloatDistribution(pair[0], sum(pair), log=True)
    ),
)


@given(POINTS)
def test_a_configuration_survives_the_round_trip_through_the_cube(point):
    configuration = SPACE.decode(point, NOTHING)
    assert SPACE.decode(SPACE.encode(configuration), NOTHING) == configuration


@given(POINTS)
def test_a_configuration_survives_the_round_trip_through_parameters(point):
    configuration = SPACE.decode(point, NOTHING)
    assert SPACE.configuration(SPACE.parameters(configuration), NOTHING) == configuration


@given(POINTS)
def test_every_value_lies_in_its_knobs_range(point):
    for name, value in SPACE.decode(point, NOTHING).items():
        knob = SPACE.knobs[name]
        if value in knob.special_values:
            continue
        if knob.kind in {"integer", "real"}:
            assert knob.minimum <= value <= knob.maximum
            assert isinstance(value, int if knob.kind == "integer" else float)
        else:
            assert value in (knob.choices or (True, False))


@given(POINTS)
def test_parameters_are_what_their_distributions_allow(point):
    parameters = SPACE.parameters(SPACE.decode(point, NOTHING))
    for name, distribution in SPACE.distributions.items():
        # raises where the value is none of the distribution's
        assert distribution.to_external_repr(distribution.to_internal_repr(parameters[name])) == parameters[name]


@given(NUMBERS, st.floats(0, 1))
def test_levels_are_their_own_nearest(distribution, unit):
    axis = axis_of(distribution)
    level = axis.decode(unit)
    assert axis.decode(axis.encode(level)) == level
    assert distribution.low <= level <= distribution.high


@given(NUMBERS, st.lists(st.floats(0, 1), min_size=2, max_size=30))
def test_order_is_kept(distribution, units):
    axis = axis_of(distribution)
    levels = [axis.decode(unit) for unit in sorted(units)]
    assert levels == sorted(levels)
    places = [axis.encode(level) for level in levels]
    assert places == sorted(places)


@given(NUMBERS)
def test_both_ends_can_be_reached(distribution):
    axis = axis_of(distribution)
    assert (axis.decode(0.0), axis.decode(1.0)) == (distribution.low, distribution.high)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_snapping_is_what_decoding_and_encoding_does(units):
    axis = axis_of(IntDistribution(1, 200, log=True))
    expected = [axis.encode(axis.decode(unit)) for unit in units]
    assert axis.snapped(np.array(units)) == pytest.approx(expected)


def test_the_scale_is_logarithmic_where_the_knob_says_so():
    axis = axis_of(IntDistribution(1, 200, log=True))
    halfway = np.median([axis.decode(unit) for unit in np.linspace(0, 1, 1001)])
    assert 10 <= halfway <= 18


def test_weights_are_the_shares_of_choices():
    axis = axis_of(CategoricalDistribution(("no", "-1", "0")), (0.8, 0.1, 0.1))
    drawn = [axis.decode(unit) for unit in np.linspace(0, 0.9999, 1000)]
    assert (drawn.count("no"), drawn.count("-1"), drawn.count("0")) == (800, 100, 100)


KNOB = Knob("k", "real", Scope.RELOAD, "", "", minimum=10.0, maximum=1000.0, log_scale=True, special_values=(-1,))
SPECIAL = SearchSpace({"k": KNOB})


def test_a_fifth_of_the_cube_is_special():
    rng = np.random.default_rng(1)
    values = [SPECIAL.decode(point, NOTHING)["k"] for point in rng.random((2000, 2))]
    assert 0.17 < values.count(-1) / 2000 < 0.23


@pytest.mark.parametrize(
    ("value", "becomes"), [(-1, -1), (-1.0, -1), (10.0, 10.0), (3.0, 10.0), (5000.0, 1000.0), (99.5, 99.5)]
)
def test_values_from_elsewhere_go_to_the_nearest_that_can_be_searched(value, becomes):
    parameters = SPECIAL.parameters(Configuration({"k": value}))
    assert SPECIAL.configuration(parameters, NOTHING)["k"] == becomes


def test_what_has_one_value_only_or_needs_a_restart_is_not_searched():
    assert "shared_buffers" not in SPACE.knobs
    assert "synchronous_commit" not in SPACE.knobs
    fixed = Knob("fixed", "integer", Scope.RELOAD, "", "", minimum=3, maximum=3)
    catalogue = load_catalogue()
    assert not SearchSpace.of(type(catalogue)({"fixed": fixed})).knobs


def test_knobs_outside_the_space_stay_as_they_are():
    over = Configuration({"other": 7, "k": 20.0})
    assert SPECIAL.decode([0.0, 0.0], over)["other"] == 7


# ---- knobs without effect ----------------------------------------------------------------------------------------

STOCK = Configuration(
    {
        "jit": True,
        "jit_above_cost": 100_000.0,
        "commit_delay": 0,
        "commit_siblings": 5,
        "bgwriter_lru_maxpages": 100,
        "bgwriter_delay": 200,
        "bgwriter_lru_multiplier": 2.0,
    }
)


@given(POINTS, POINTS)
def test_equal_configurations_are_one_point(point, other):
    """Whatever idle knobs are set to, and whatever lies under a special value, the forest sees the same."""
    one = SPACE.decode(point, NOTHING)
    idle = {name: value for name, value in SPACE.decode(other, NOTHING).items() if name not in one}
    assert (SPACE.encode(one.replaced(idle)) == SPACE.encode(one)).all()


@given(POINTS)
def test_a_settled_point_stays_and_means_the_same(point):
    settled = SPACE.cube.settled(np.array([point]))
    assert (SPACE.cube.settled(settled) == settled).all()
    assert SPACE.decode(settled[0], NOTHING) == SPACE.decode(point, NOTHING)


@given(POINTS, st.floats(-0.002, 0.002))
def test_what_lies_nearest_to_what_is_in_force_changes_nothing(point, off):
    whole = SPACE.decode(point, NOTHING)
    # between two levels, as a rule or an owner sets it
    numbers = {name: value for name, value in whole.items() if not isinstance(value, bool | str)}
    in_force = whole.replaced({name: type(value)(value * (1 + off)) for name, value in numbers.items()})
    (settled,) = SPACE.cube.settled(SPACE.cube.points([SPACE.parameters(in_force)]))
    assert SPACE.decode(settled, in_force) == in_force


@given(POINTS)
def test_canonical_parameters_lie_at_settled_points(point):
    parameters = SPACE.parameters(SPACE.decode(point, NOTHING))
    assert SPACE.canonical(parameters) == parameters
    (settled,) = SPACE.cube.settled(SPACE.cube.points([parameters]))
    assert SPACE.cube.parameters(settled) == SPACE.canonical(SPACE.cube.parameters(settled))


@given(POINTS)
def test_a_knob_without_effect_stays_as_it_is(point):
    found = SPACE.decode(point, STOCK)
    if not found["jit"]:
        assert found["jit_above_cost"] == STOCK["jit_above_cost"]
    if found["commit_delay"] == 0:
        assert found["commit_siblings"] == STOCK["commit_siblings"]
    if found["bgwriter_lru_maxpages"] == 0:
        assert {found["bgwriter_delay"], found["bgwriter_lru_multiplier"]} == {200, 2.0}


def test_every_condition_of_the_catalogue_makes_something_idle():
    conditional = {name for name, knob in SPACE.knobs.items() if knob.only_if and knob.only_if.knob in SPACE.knobs}
    assert {"commit_siblings", "bgwriter_delay"} <= conditional
    for name in conditional:
        condition = SPACE.knobs[name].only_if
        off = {"jit": False}.get(condition.knob, 0)
        assert not condition.holds(off)
        without = Configuration({**dict.fromkeys(SPACE.knobs, 1), condition.knob: off})
        points = [SPACE.encode(without.replaced({name: value})) for value in (200, 9000)]
        assert (points[0] == points[1]).all()
