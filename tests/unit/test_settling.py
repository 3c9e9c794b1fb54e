"""What a trial discards after a switch, in an arena whose response takes its time to settle."""

from collections import Counter

import numpy as np
import pytest
from settling_arena import BASELINE, CANDIDATE, SettlingArena, held, in_turn_without_looking

from ml_postgres_optimization.trials import (
    NO_GUARDS,
    Outcome,
    Restarting,
    Settling,
    Switch,
    Thresholds,
    TrialPlan,
    unsettled,
)

SLOW_START = {BASELINE: 0.0, CANDIDATE: 2.0}
FAST_START = {BASELINE: 0.0, CANDIDATE: -0.6}


@pytest.mark.parametrize(
    ("noise", "correlation"),
    [pytest.param(0.03, 0.0, marks=pytest.mark.long), pytest.param(0.1, 0.0, marks=pytest.mark.long), (0.1, 0.5)],
)
def test_where_nothing_needs_to_settle_the_plans_length_is_kept(noise, correlation):
    plan, lengths, left_out = TrialPlan(max_pairs=7), [], 0.0
    for seed in range(200):
        trial = held(SettlingArena(excess=0.0, noise=noise, correlation=correlation, seed=seed), plan, seed=seed)
        lengths.append(trial.figures["settle_seconds"])
        left_out += trial.figures.get("settle_pairs_left_out", 0.0)
    assert min(lengths) == 2.0
    assert lengths.count(2.0) >= 180
    assert left_out <= 0.3 * 200


def test_looking_takes_no_time_of_a_trial():
    plan = TrialPlan(max_pairs=7)
    looked, not_looked = (SettlingArena(excess=0.0, seed=1) for _ in range(2))
    held(looked, plan)
    held(not_looked, plan, layout=in_turn_without_looking)
    assert looked.clock.monotonic_seconds() == not_looked.clock.monotonic_seconds()
    assert 2 <= len(looked.traced) <= 4
    assert not not_looked.traced


def outcomes(layout, *, runs=40, plan=None, **arena):
    found = Counter()
    for seed in range(runs):
        found[held(SettlingArena(seed=seed, **arena), plan, layout=layout, seed=seed).verdict.outcome] += 1
    return found


def test_a_candidate_is_judged_by_its_steady_state():
    arena = {"excess": SLOW_START, "decay_seconds": 2.5, "ratio": 0.8, "noise": 0.05}
    looked = held(SettlingArena(**arena), TrialPlan(block_seconds=10.0))
    assert looked.verdict.outcome is Outcome.PROMOTED
    assert looked.verdict.ratio == pytest.approx(0.8, abs=0.04)
    assert looked.figures["settle_seconds"] >= 4.0
    not_looked = held(SettlingArena(**arena), TrialPlan(block_seconds=10.0), layout=in_turn_without_looking)
    assert not_looked.verdict.ratio > 0.93


def test_of_those_that_only_start_slowly_more_are_promoted():
    arena = {"excess": SLOW_START, "decay_seconds": 2.5, "ratio": 0.8}
    from_the_data = Settling()
    campaign = [held(SettlingArena(seed=seed, **arena), settling=from_the_data, seed=seed) for seed in range(10)]
    assert [trial.verdict.outcome for trial in campaign].count(Outcome.PROMOTED) >= 8
    assert outcomes(in_turn_without_looking, runs=10, **arena)[Outcome.PROMOTED] == 0


def test_a_candidate_that_only_starts_fast_is_not_promoted():
    arena = {"excess": FAST_START, "decay_seconds": 2.5, "ratio": 1.1}
    campaign, plan = Settling(), TrialPlan(max_pairs=12, thresholds=Thresholds(futility_alpha=None))
    trials = [held(SettlingArena(seed=seed, **arena), plan, settling=campaign, seed=seed) for seed in range(10)]
    assert Outcome.PROMOTED not in {trial.verdict.outcome for trial in trials}
    assert np.median([trial.verdict.ratio for trial in trials[2:]]) > 1.0


@pytest.mark.parametrize(("noise", "decay_seconds"), [pytest.param(0.03, 2.0, marks=pytest.mark.long), (0.1, 5.0)])
def test_equal_arms_that_settle_slowly_are_promoted_in_no_more_than_5_percent(noise, decay_seconds):
    plan = TrialPlan(guards=NO_GUARDS, thresholds=Thresholds(futility_alpha=None), max_pairs=20)
    promoted = sum(
        held(SettlingArena(decay_seconds=decay_seconds, noise=noise, seed=seed), plan, seed=seed).verdict.outcome
        is Outcome.PROMOTED
        for seed in range(100)
    )
    assert promoted <= 5


def test_both_arms_get_the_same_length_in_every_pair():
    arena = SettlingArena(excess=SLOW_START, decay_seconds=2.5, ratio=0.8)
    trial = held(arena)
    _, *pairs = arena.settled_seconds
    assert trial.figures["settle_seconds"] > 2.0
    assert trial.figures["settle_pairs_left_out"] >= 2
    for (one, seconds), (other, other_seconds) in zip(pairs[::2], pairs[1::2], strict=True):
        assert {one, other} == {BASELINE, CANDIDATE}
        assert seconds == other_seconds
    lengths = [seconds for _, seconds in pairs]
    assert lengths == sorted(lengths)


def test_a_campaign_remembers_it_for_the_next_trial_with_such_a_switch():
    campaign = Settling()
    first = held(SettlingArena(decay_seconds=2.0), settling=campaign)
    second = SettlingArena(decay_seconds=2.0, seed=2)
    again = held(second, settling=campaign)
    assert campaign.learned_seconds.keys() == {Switch.RELOAD}
    assert second.settled_seconds[0][1] == first.figures["settle_seconds"] > 2.0
    assert again.figures.get("settle_pairs_left_out", 0) <= first.figures["settle_pairs_left_out"]


def test_caches_are_filled_longer_where_the_first_restarts_show_it():
    arena = SettlingArena(excess=3.0, decay_seconds=6.0, noise=0.02)
    plan = TrialPlan(block_seconds=10.0, warm_up_seconds=8.0, max_pairs=8, guards=NO_GUARDS)
    campaign = Settling()
    trial = held(arena, plan, settling=campaign, layout=Restarting)
    assert 12.0 <= trial.figures["settle_seconds"] <= 20.0
    assert campaign.applied_to(plan).warm_up_seconds == trial.figures["settle_seconds"]
    assert campaign.applied_to(plan).settle_seconds == 2.0


def test_what_the_limit_cuts_off_is_said():
    arena = SettlingArena(excess=6.0, decay_seconds=7.0, noise=0.01)
    trial = held(arena, TrialPlan(guards=NO_GUARDS, max_pairs=8))
    assert trial.figures["settle_seconds"] == 10.0
    assert trial.figures["settle_is_cut_off"] == 1.0
    assert unsettled(trial.figures) == (
        "the response takes longer to settle after a switch than the 10.0 s that may be discarded"
    )


def test_the_guards_look_at_a_candidate_that_has_settled():
    arena = SettlingArena(excess={BASELINE: 0.0, CANDIDATE: 8.0}, decay_seconds=1.5, ratio=0.8, noise=0.02)
    assert held(arena, TrialPlan(block_seconds=10.0)).verdict.outcome is Outcome.PROMOTED
    terrible = SettlingArena(excess=SLOW_START, ratio=4.0, noise=0.02)
    assert held(terrible).verdict.outcome is Outcome.ABORTED
    assert terrible.in_force == BASELINE


def test_pairs_that_are_left_out_do_not_use_up_those_that_may_be_compared():
    trial = held(SettlingArena(decay_seconds=2.0), TrialPlan(max_pairs=4))
    assert trial.figures["settle_pairs_left_out"] >= 2
    assert len(trial.verdict.pairs) == 4
    assert trial.figures["candidate_measured_seconds"] == 4 * 5.0


def test_blocks_that_are_too_short_to_look_into_keep_the_plans_length():
    arena = SettlingArena(decay_seconds=2.0)
    assert held(arena, TrialPlan(block_seconds=3.0, max_pairs=3)).figures["settle_seconds"] == 2.0
    assert not arena.traced
