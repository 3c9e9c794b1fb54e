"""The study in the state folder, and the ledger."""

import math
from dataclasses import replace
from datetime import UTC, datetime

import optuna
import pytest
from optuna.samplers import RandomSampler
from optuna.trial import TrialState
from synthetic_windows import STOCK as MADE_UP
from synthetic_windows import history

from ml_postgres_optimization.errors import StateError
from ml_postgres_optimization.knobs.catalogue import load_catalogue
from ml_postgres_optimization.knobs.configuration import CONCURRENCY, Configuration
from ml_postgres_optimization.models.features import LoadContext
from ml_postgres_optimization.models.knob_forest import KnobForest
from ml_postgres_optimization.trials import Interval, Measure, Outcome, Pair, PairedTest, Proposal, Trial, Verdict
from ml_postgres_optimization.tuning import (
    ForestSampler,
    Ledger,
    SearchSpace,
    TuningStudy,
    ranked_by_model,
    rule_drafts,
)

SPACE = SearchSpace.of(load_catalogue(), names=("work_mem", "jit", CONCURRENCY))
STOCK = Configuration({"work_mem": 4096, "jit": True, CONCURRENCY: 60})
BETTER = STOCK.replaced({CONCURRENCY: 10})
START = datetime(2026, 1, 1, tzinfo=UTC)
PAIRS = (Pair(1.0, 0.5, True),)


def trial(baseline, candidate, ratio, outcome=Outcome.PROMOTED, *, pairs=PAIRS):
    verdict = Verdict(outcome, ratio, ratio * 0.9, ratio * 1.1, pairs, "because")
    return Trial("t", baseline, Proposal(candidate, "rules", "why"), verdict, START, START)


def opened(folder, initial=STOCK):
    return TuningStudy.open(folder, workload="w", space=SPACE, initial=initial, sampler=RandomSampler(seed=1))


@pytest.fixture(autouse=True)
def _quiet():
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def test_values_are_told_against_the_first_baseline(tmp_path):
    study = opened(tmp_path)
    study.tell(trial(STOCK, BETTER, 0.5))
    study.tell(trial(BETTER, BETTER.replaced({"jit": False}), 0.8))
    assert [found.value for found in study.study.trials] == pytest.approx([0.0, math.log(0.5), math.log(0.4)])


def test_a_later_run_counts_on_from_the_value_of_its_baseline(tmp_path):
    opened(tmp_path).tell(trial(STOCK, BETTER, 0.5))
    again = opened(tmp_path, initial=BETTER)
    again.tell(trial(BETTER, BETTER.replaced({"jit": False}), 0.8))
    assert again.study.trials[-1].value == pytest.approx(math.log(0.4))


def test_an_interrupted_trial_fails_and_the_rest_is_kept(tmp_path):
    study = opened(tmp_path)
    study.tell(trial(STOCK, BETTER, 0.5))
    study.ask(BETTER)
    again = opened(tmp_path, BETTER)
    states = [found.state for found in again.study.trials]
    assert states == [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.FAIL]
    again.tell(trial(BETTER, STOCK, 1.5, Outcome.REJECTED))
    assert again.study.trials[-1].value == pytest.approx(math.log(0.5 * 1.5))


def test_an_unknown_configuration_begins_a_study_of_its_own(tmp_path):
    first, second = opened(tmp_path), opened(tmp_path, BETTER)
    assert first.study.study_name != second.study.study_name
    assert [found.value for found in second.study.trials] == [0.0]


def test_where_ranges_have_changed_the_trials_are_carried_over(tmp_path):
    before = opened(tmp_path)
    before.tell(trial(STOCK, BETTER, 0.5))
    before.tell(trial(BETTER, BETTER.replaced({"work_mem": 900_000}), 0.9, Outcome.REJECTED))
    knobs = dict(SPACE.knobs)
    knobs["work_mem"] = replace(knobs["work_mem"], maximum=500_000.0)
    narrower = SearchSpace(knobs)
    after = TuningStudy.open(tmp_path, workload="w", space=narrower, initial=BETTER, sampler=RandomSampler(seed=1))
    assert after.study.study_name != before.study.study_name
    assert [found.value for found in after.study.trials] == [found.value for found in before.study.trials]
    assert after.study.trials[-1].params["work_mem"] == 500_000
    after.tell(trial(BETTER, BETTER.replaced({"jit": False}), 0.8))
    assert after.study.trials[-1].value == pytest.approx(math.log(0.4))
    again = TuningStudy.open(tmp_path, workload="w", space=narrower, initial=BETTER, sampler=RandomSampler(seed=1))
    assert again.study.study_name == after.study.study_name
    assert len(again.study.trials) == 4


def test_an_aborted_trial_counts_as_bad_however_its_pairs_looked(tmp_path):
    study = opened(tmp_path)
    study.tell(trial(STOCK, BETTER, 0.7, Outcome.ABORTED))
    study.tell(trial(STOCK, BETTER, 500.0, Outcome.ABORTED))
    assert [found.value for found in study.study.trials[1:]] == pytest.approx([math.log(2), 1.5])


def test_what_is_enqueued_is_asked_first(tmp_path):
    study = opened(tmp_path)
    study.enqueue([BETTER, BETTER], reason="a hunch")
    asked = study.ask(STOCK)
    assert (asked.configuration, asked.reason) == (BETTER, "a hunch")
    study.tell(trial(STOCK, BETTER, 0.5), asked)
    assert study.study.trials[-1].user_attrs["outcome"] == "promoted"
    assert study.ask(STOCK).reason != "a hunch"


def test_what_an_earlier_run_enqueued_and_never_tried_is_not_asked_by_the_next(tmp_path):
    other = STOCK.replaced({"jit": False})
    opened(tmp_path).enqueue([BETTER, other], reason="a model that is not valid any more")
    again = opened(tmp_path)
    assert [found.state for found in again.study.trials] == [TrialState.COMPLETE]
    asked = again.ask(STOCK)
    assert asked.configuration not in (BETTER, other)
    assert "model" not in asked.reason
    again.enqueue([other, BETTER, STOCK, BETTER], reason="a new model")
    queue = [again.ask(STOCK) for _ in range(2)]
    assert [(found.configuration, found.reason) for found in queue] == [
        (other, "a new model"),
        (BETTER, "a new model"),
    ]
    again.enqueue([other], reason="twice")
    assert again.ask(STOCK).reason != "twice"


def test_each_proposal_of_the_search_says_how_it_came_about(tmp_path):
    sampler = ForestSampler(seed=1, startup_trials=4, random_share=0.3)
    study = TuningStudy.open(tmp_path, workload="w", space=SPACE, initial=STOCK, sampler=sampler)
    reasons = []
    for _ in range(20):
        asked = study.ask(STOCK)
        reasons.append(asked.reason)
        study.tell(trial(STOCK, asked.configuration, 1.1, Outcome.REJECTED), asked)
    # the initial configuration is the first finished trial
    assert set(reasons[:3]) == {"the search spreads its first trials over the space"}
    later = reasons[3:]
    assert set(later) == {
        "the search expects most of it",
        "drawn at random, so that the search does not settle too soon",
    }
    assert later.count("the search expects most of it") > len(later) / 2


def test_where_nothing_may_be_tried_that_is_the_reason(tmp_path):
    study = TuningStudy.open(
        tmp_path,
        workload="w",
        space=SPACE,
        initial=STOCK,
        sampler=ForestSampler(seed=1),
        allows=lambda _configuration, _over: False,
    )
    assert study.ask(STOCK).reason == "nothing else that the search thought of may be tried"


def test_what_may_be_tried_hangs_on_what_is_in_force(tmp_path):
    asked_of = []

    def allows(configuration, over):
        asked_of.append(over)
        return configuration["jit"] == over["jit"]

    study = TuningStudy.open(
        tmp_path, workload="w", space=SPACE, initial=STOCK, sampler=ForestSampler(seed=1), allows=allows
    )
    for jit in (True, False, True, False, False):
        over = STOCK.replaced({"jit": jit})
        asked = study.ask(over)
        assert asked.configuration["jit"] is jit
        assert set(asked_of) == {over}
        asked_of.clear()
        study.tell(trial(over, asked.configuration, 1.1, Outcome.REJECTED), asked)


def test_a_folder_that_cannot_be_used_is_said(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StateError):
        opened(tmp_path / "file")


def test_a_storage_that_is_lost_meanwhile_is_said(tmp_path, monkeypatch):
    study = opened(tmp_path)
    asked = study.ask(STOCK)

    def lost(*_given, **_named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(study.study, "tell", lost)
    for use in (lambda: study.tell(trial(STOCK, BETTER, 0.5), asked), lambda: study.refuse(asked, "no")):
        with pytest.raises(StateError, match="No space left on device") as caught:
            use()
        assert str(tmp_path) in caught.value.what
        assert "start again" in caught.value.next_step


def test_a_trial_that_tells_nothing_is_not_remembered_as_bad(tmp_path):
    study = opened(tmp_path)
    asked = study.ask(STOCK)
    # as a trial ends that could compare nothing
    empty = trial(STOCK, BETTER, PairedTest().interval().ratio, Outcome.UNDECIDED, pairs=())
    study.tell(empty, asked)
    study.tell(empty)
    study.give_back(study.ask(STOCK))
    assert [found.state for found in study.study.trials] == [TrialState.COMPLETE, TrialState.FAIL, TrialState.FAIL]


def test_the_ledger_multiplies_what_was_promoted():
    third = BETTER.replaced({"jit": False})
    ledger = Ledger(STOCK, STOCK).after(trial(STOCK, BETTER, 0.5)).after(trial(BETTER, third, 1.2, Outcome.REJECTED))
    ledger = ledger.after(trial(BETTER, third, 0.8))
    assert ledger.incumbent == third
    assert ledger.accumulated == pytest.approx((0.4, 0.4 * 0.81, 0.4 * 1.21))
    assert len(ledger.promoted) == 2
    assert ledger.proven is None


def test_the_proof_is_turned_round():
    ledger = Ledger(STOCK, BETTER).proved_by(trial(BETTER, STOCK, 2.0, Outcome.REJECTED))
    assert ledger.proven == pytest.approx((0.5, 1 / 2.2, 1 / 1.8))
    assert ledger.incumbent == BETTER


def measured(one, baseline_seconds, candidate_seconds):
    """Give a trial the figures of its blocks, and the effect on the 99th percentile."""
    figures = {"baseline_p99_seconds": baseline_seconds, "candidate_p99_seconds": candidate_seconds}
    ratio = candidate_seconds / baseline_seconds
    return replace(one, figures=figures, effects={Measure.P99: Interval(ratio, 0.9 * ratio, math.inf)})


def test_base_and_optimised_come_from_the_proof_turned_round():
    promoted = measured(trial(STOCK, BETTER, 0.5), 0.009, 0.003)
    proof = measured(trial(BETTER, STOCK, 2.0, Outcome.REJECTED), 0.004, 0.008)
    comparison = Ledger(STOCK, STOCK).after(promoted).proved_by(proof).comparison
    assert comparison.is_proof
    assert comparison.initial_seconds == {Measure.P99: 0.008}
    assert comparison.optimised_seconds == {Measure.P99: 0.004}
    assert comparison.ratios[Measure.P99] == pytest.approx((0.5, 0.0, 1 / 1.8))


def test_without_a_proof_base_and_optimised_are_those_of_the_only_promoted_trial():
    third = BETTER.replaced({"jit": False})
    ledger = Ledger(STOCK, STOCK).after(measured(trial(STOCK, third, 1.0, Outcome.EQUIVALENT), 0.009, 0.009))
    assert ledger.comparison is None
    assert ledger.initial_seconds == {Measure.P99: 0.009}
    one = ledger.after(measured(trial(STOCK, BETTER, 0.5), 0.010, 0.005))
    assert not one.comparison.is_proof
    assert (one.comparison.initial_seconds, one.comparison.optimised_seconds) == (
        {Measure.P99: 0.010},
        {Measure.P99: 0.005},
    )
    assert one.comparison.ratios[Measure.P99] == pytest.approx((0.5, 0.45, math.inf))
    assert one.after(trial(BETTER, third, 0.8)).comparison is None, "neither trial compares base with optimised"
    assert Ledger(STOCK, STOCK).initial_seconds == {}


def test_a_proof_that_the_initial_configuration_is_faster_puts_it_back():
    ledger = Ledger(STOCK, BETTER).proved_by(trial(BETTER, STOCK, 0.8))
    assert ledger.incumbent == STOCK
    assert Ledger(STOCK, BETTER).proved_by(trial(BETTER, STOCK, 1.0, pairs=())).proven is None


def test_the_rules_are_split_into_concurrency_with_alternatives_and_the_rest():
    def advise(incumbent):
        return incumbent.replaced(
            {CONCURRENCY: 5, "jit": False, "work_mem": 1_000_000 // int(incumbent[CONCURRENCY])}
        )

    drafts = rule_drafts(advise, STOCK)
    assert [dict(draft.values(STOCK)) for draft in drafts[:3]] == [
        {CONCURRENCY: connections} for connections in (5, 10, 20)
    ]
    assert [draft.is_alternative for draft in drafts] == [False, True, True, False]
    assert dict(drafts[3].values(BETTER)) == {"jit": False, "work_mem": 100_000}


def test_more_connections_than_are_in_force_are_not_drafted():
    drafts = rule_drafts(lambda incumbent: incumbent.replaced({CONCURRENCY: 5}), STOCK.replaced({CONCURRENCY: 8}))
    assert [dict(draft.values(STOCK)) for draft in drafts[:-1]] == [{CONCURRENCY: 5}]


def test_sessions_that_are_not_ours_have_no_concurrency_to_draft():
    foreign = Configuration({"jit": True})
    (draft,) = rule_drafts(lambda incumbent: incumbent.replaced({"jit": False}), foreign)
    assert dict(draft.values(foreign)) == {"jit": False}


def learned(effect):
    """Let a forest learn from a made-up server on which concurrency has this effect."""
    configurations = [MADE_UP.replaced({CONCURRENCY: 2 + 7 * step % 90}) for step in range(60)]
    past = history(
        240,
        1,
        log_mean=lambda number, rng: effect(configurations[number // 4][CONCURRENCY]) + 0.02 * rng.normal(),
        configuration=lambda number: configurations[number // 4],
    )
    return KnobForest.fit(past, 1), LoadContext.of(past[0].window)


def test_a_model_that_has_learned_something_is_followed():
    model, context = learned(lambda connections: -6.0 + abs(math.log(connections / 8)))
    space = SearchSpace.of(load_catalogue(), names=(CONCURRENCY,))
    incumbent = MADE_UP.replaced({CONCURRENCY: 90})
    best = ranked_by_model(model, context, incumbent, space, allows=lambda _: True, seed=1)
    assert best
    assert all(4 <= configuration[CONCURRENCY] <= 16 for configuration in best)
    assert len({configuration.id for configuration in best}) == len(best)
    assert ranked_by_model(model, context, incumbent, space, allows=lambda _: False, seed=1) == []


def test_a_model_that_knows_no_better_than_chance_is_not_followed():
    model, context = learned(lambda connections: -6.0)
    space = SearchSpace.of(load_catalogue(), names=(CONCURRENCY,))
    assert ranked_by_model(model, context, MADE_UP, space, allows=lambda _: True, seed=1) == []
