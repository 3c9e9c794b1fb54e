"""What is discarded after a switch, against its laws: it grows for a transient, and for noise it does not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_postgres_optimization.trials import Settling, Switch, TrialPlan
from ml_postgres_optimization.trials.layout.settling import transient_steps

STEP_SECONDS = 0.5
RUNS = 200
FIGURE = st.floats(1e-4, 1e2)
TRACES = st.integers(8, 20).flatmap(
    lambda steps: st.lists(st.lists(FIGURE, min_size=steps, max_size=steps), min_size=2, max_size=2)
)


def noise(rng, steps, *, deviation=0.05, correlation=0.0):
    levels, level = [], rng.standard_normal()
    for _ in range(steps):
        level = correlation * level + np.sqrt(1 - correlation**2) * rng.standard_normal()
        levels.append(deviation * level)
    return np.array(levels)


def decaying(rng, steps, *, excess, decay_seconds, deviation=0.02):
    seconds = STEP_SECONDS * np.arange(steps)
    return (1 + excess * np.exp(-seconds / decay_seconds)) * np.exp(noise(rng, steps, deviation=deviation))


@pytest.mark.parametrize("steps", [8, 10, 20])
@pytest.mark.parametrize("deviation", [0.001, 0.05, 0.3])
def test_stationary_noise_shows_no_transient_in_nine_of_ten_pairs(steps, deviation):
    rng = np.random.default_rng(1)
    quiet = sum(
        not transient_steps([np.exp(noise(rng, steps, deviation=deviation)) for _ in range(2)]) for _ in range(RUNS)
    )
    assert quiet >= 0.9 * RUNS


@pytest.mark.parametrize("steps", [10, 20])
def test_two_pairs_in_a_row_do_not_show_one_even_where_windows_correlate(steps):
    rng = np.random.default_rng(2)

    def is_seen():
        traces = [np.exp(noise(rng, steps, correlation=0.5)) for _ in range(2)]
        return transient_steps(traces) > 0

    assert sum(is_seen() and is_seen() for _ in range(RUNS)) <= 0.1 * RUNS


@pytest.mark.parametrize("decay_seconds", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("excess", [0.5, 2.0, -0.5])
def test_what_decays_is_found_and_its_length_is_within_reason(decay_seconds, excess):
    rng = np.random.default_rng(3)
    found = [
        transient_steps([decaying(rng, 20, excess=excess, decay_seconds=decay_seconds), np.exp(noise(rng, 20))])
        for _ in range(50)
    ]
    seconds = STEP_SECONDS * np.median(found)
    # by then between 20 and 99.9 % of the excess are gone
    assert 0.2 * decay_seconds <= seconds <= 7 * decay_seconds
    assert sum(steps > 0 for steps in found) >= 40


def test_a_stall_in_the_middle_of_a_block_is_no_transient():
    rng = np.random.default_rng(4)
    seen = 0
    for _ in range(RUNS):
        log_seconds = noise(rng, 10)
        log_seconds[3:5] += 2
        seen += transient_steps([np.exp(log_seconds), np.exp(noise(rng, 10))]) > 0
    assert seen <= 0.05 * RUNS


@given(TRACES)
def test_exchanging_the_blocks_changes_nothing(traces):
    assert transient_steps(traces) == transient_steps(traces[::-1])


@given(TRACES, st.sampled_from([0.25, 0.5, 2.0, 64.0]))
def test_how_fast_one_of_them_is_changes_nothing(traces, factor):
    first, second = traces
    scaled = [factor * seconds for seconds in first]
    assert transient_steps([scaled, second]) == transient_steps([first, second])


@given(TRACES)
def test_no_more_than_half_of_a_block_is_found_at_once(traces):
    assert 0 <= transient_steps(traces) <= len(traces[0]) // 2


@pytest.mark.parametrize("unknown", [float("nan"), 0.0])
def test_a_window_in_which_nothing_ran_shows_nothing(unknown):
    assert transient_steps([[unknown] + [1.0] * 9, [5.0] + [1.0] * 9]) == 0


@given(
    st.lists(st.tuples(st.sampled_from(Switch), st.floats(0.0, 100.0)), max_size=8),
    st.floats(0.5, 60.0),
    st.floats(2.0, 40.0),
)
def test_what_is_discarded_grows_for_that_switch_only_and_within_its_limits(grown, block_seconds, settle_seconds):
    plan, settling = TrialPlan(block_seconds=block_seconds, settle_seconds=settle_seconds), Settling()
    for switch, seconds in grown:
        before = {each: settling.applied_to(plan).settle_seconds_for(each) for each in Switch}
        settling.grow(plan, switch, seconds)
        after = {each: settling.applied_to(plan).settle_seconds_for(each) for each in Switch}
        assert after[switch] >= before[switch]
        assert settling.is_longest(plan, switch) or after[switch] >= 1.5 * before[switch]
        assert {**after, switch: 0} == {**before, switch: 0}
        assert all(after[each] <= plan.longest_settle_seconds_for(each) for each in Switch)
    assert settling.applied_to(plan).settle_seconds >= 2.0
