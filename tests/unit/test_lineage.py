"""What promotions brought together: only those that stand on each other count, and a proof is none of them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded_trials import STOCK, TUNED, recorded

from ml_postgres_optimization.interfaces.lineage import lines, proofs
from ml_postgres_optimization.trials import Interval

BETTER = TUNED.replaced({"work_mem": 131072})
ELSEWHERE = STOCK.replaced({"work_mem": 1})


def promoted(number, baseline, candidate, ratio=0.8):
    return recorded(number=number, around=ratio, baseline=baseline, candidate=candidate)


def proof(number, found, initial, outcome="rejected", pairs=20):
    more = {"origin": "proof", "outcome": outcome, "around": 1.25}
    return recorded(pairs, number=number, baseline=found, candidate=initial, **more)


def brought(*trials):
    return [line.brought for line in lines(trials)]


def test_nothing_promoted_brings_nothing():
    assert brought() == []
    assert brought(recorded(outcome="rejected"), recorded(0, outcome="aborted", ratio=math.inf)) == [(1, 1, 1)] * 2


def test_promotions_on_each_other_multiply_with_their_ends():
    first, second = promoted(1, STOCK, TUNED), promoted(2, TUNED, BETTER)
    rejected = recorded(number=3, baseline=BETTER, candidate=STOCK, outcome="rejected")
    one, both, still = brought(first, second, rejected)
    assert one == (first.ratio, first.ratio_low, first.ratio_high)
    assert both.ratio == pytest.approx(first.ratio * second.ratio)
    assert (both.low, both.high) == pytest.approx(
        (first.ratio_low * second.ratio_low, first.ratio_high * second.ratio_high)
    )
    assert still == both


def test_a_proof_is_not_counted_as_a_promotion():
    first = promoted(1, STOCK, TUNED)
    stayed, put_back = proof(2, TUNED, STOCK), proof(2, TUNED, STOCK, "promoted")
    assert brought(first, stayed)[-1] == brought(first)[-1]
    assert brought(first, put_back)[-1] == (1, 1, 1)


def test_a_proof_takes_back_only_what_its_own_run_has_promoted():
    first, second = promoted(1, STOCK, TUNED), promoted(2, TUNED, BETTER)
    assert brought(first, second, proof(3, BETTER, TUNED, "promoted"))[-1] == brought(first)[-1]


def test_what_was_rolled_back_no_longer_counts():
    first, second = promoted(1, STOCK, TUNED), promoted(2, TUNED, BETTER)
    again = promoted(3, STOCK, BETTER)
    assert brought(first, second, again)[-1] == brought(again)[-1]
    assert brought(first, second, promoted(3, TUNED, BETTER))[-1].ratio < brought(again)[-1].ratio


def test_a_search_that_is_proven_at_its_end_counts_once_and_keeps_what_was_promoted_before():
    before = promoted(1, STOCK, TUNED)
    rung, end = TUNED.replaced({"commit_delay": 200}), TUNED.replaced({"commit_delay": 300})
    searched = [
        recorded(2, number=2, baseline=TUNED, candidate=rung, outcome="preferred"),
        recorded(1, number=3, baseline=rung, candidate=BETTER, outcome="rejected"),
        recorded(2, number=4, baseline=rung, candidate=end, outcome="preferred"),
    ]
    assert brought(before, *searched)[-1] == brought(before)[-1]
    found = recorded(number=5, baseline=TUNED, candidate=end, origin="search")
    together = brought(before, *searched, found)[-1]
    assert together == brought(before, found)[-1]
    assert together.ratio == pytest.approx(before.ratio * found.ratio)
    assert proofs([before, *searched, found]) == []


def test_what_a_search_went_on_with_is_no_baseline_of_a_promotion():
    rung = TUNED.replaced({"commit_delay": 200})
    search = recorded(2, number=2, baseline=TUNED, candidate=rung, outcome="preferred")
    by_hand = promoted(3, rung, BETTER)
    assert brought(promoted(1, STOCK, TUNED), search, by_hand)[-1] == brought(by_hand)[-1]


def test_after_a_change_by_hand_it_is_counted_afresh():
    by_hand = promoted(2, ELSEWHERE, BETTER)
    assert brought(promoted(1, STOCK, TUNED), by_hand)[-1] == brought(by_hand)[-1]


def test_a_proof_is_told_beside_what_it_checks():
    first, second = promoted(1, STOCK, TUNED), promoted(2, TUNED, BETTER)
    checked = proof(3, BETTER, STOCK)
    (found,) = proofs([first, second, checked])
    assert [trial.id for trial in found.promised.promoted] == [first.id, second.id]
    assert found.promised.brought == brought(first, second)[-1]
    assert found.proven == Interval(checked.ratio, checked.ratio_low, checked.ratio_high).inverted


def test_a_proof_of_the_last_run_checks_its_own_promotions_only():
    trials = [promoted(1, STOCK, TUNED), promoted(2, TUNED, BETTER), proof(3, BETTER, TUNED, "promoted")]
    (found,) = proofs(trials)
    assert [trial.id for trial in found.promised.promoted] == [trials[1].id]


def test_a_proof_of_what_is_not_recorded_promises_nothing():
    (found,) = proofs([proof(1, BETTER, STOCK, pairs=0)])
    assert found.promised is None and found.proven is None


configurations = st.sampled_from([STOCK, TUNED, BETTER, ELSEWHERE])
steps = st.tuples(configurations, configurations, st.sampled_from(["promoted", "rejected"]), st.booleans())


@given(st.lists(steps, max_size=12))
def test_every_line_is_one_chain_of_promotions_that_ends_where_the_last_trial_left_it(drawn):
    trials = [
        recorded(6, number=number, baseline=baseline, candidate=candidate, outcome=outcome,
                 origin="proof" if is_proof else "rules")
        for number, (baseline, candidate, outcome, is_proof) in enumerate(drawn)
    ]  # fmt: skip
    for trial, line in zip(trials, lines(trials), strict=True):
        chain = [line.start, *(one.candidate for one in line.promoted)]
        assert [one.baseline for one in line.promoted] == chain[:-1]
        assert all(one.outcome == "promoted" and one.origin != "proof" for one in line.promoted)
        assert line.end == (trial.candidate if trial.outcome == "promoted" else trial.baseline)
    assert len(proofs(trials)) == sum(is_proof for *_, is_proof in drawn)
