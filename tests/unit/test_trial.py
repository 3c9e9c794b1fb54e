"""A trial's course, in an arena that is a formula."""

import math
import pickle
import random
import re
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from ml_postgres_optimization.errors import ChangeRefused, UsageError
from ml_postgres_optimization.knobs.configuration import CONCURRENCY, Change, Configuration
from ml_postgres_optimization.telemetry import Histogram, OperationWindow, StatementCounters, VirtualClock, Window
from ml_postgres_optimization.trials import (
    NO_GUARDS,
    Arm,
    Concurrent,
    Deadline,
    Design,
    Measure,
    MemoryRunsOut,
    MemoryWatch,
    Outcome,
    Proposal,
    ServerArena,
    Switch,
    Switchback,
    Thresholds,
    TrialPlan,
    drain,
    memory_unseen,
    run_trial,
    uneven,
)
from ml_postgres_optimization.workload import LoadArm, LoadCounters

BASELINE = Configuration({"work_mem": 4096, CONCURRENCY: 8})
CANDIDATE = BASELINE.replaced({"work_mem": 8192})
PROPOSAL = Proposal(CANDIDATE, "user", "to see")


class FormulaArena:
    """Latency by configuration, with noise; remembers what was asked of it."""

    def __init__(self, candidate_seconds, *, noise=0.05, seed=0):
        self.clock = VirtualClock()
        self.latency = {BASELINE.id: 0.010, CANDIDATE.id: candidate_seconds}
        self.noise = noise
        self.rng = np.random.default_rng(seed)
        self.in_force = BASELINE
        self.calls = []
        self.fail_at = None

    def switch(self, configuration):
        self.calls.append(("switch", configuration.id))
        self.in_force = configuration

    def settle(self, seconds):
        self.calls.append(("settle", seconds))
        self.clock.sleep(seconds)

    def measure(self, seconds, *, labels):
        self.calls.append(("measure", dict(labels)))
        if self.fail_at is not None and len(self.blocks()) > self.fail_at:
            raise KeyboardInterrupt
        self.clock.sleep(seconds)
        latency = self.latency[self.in_force.id] * np.exp(self.noise * self.rng.standard_normal())
        response = Histogram.of(latency * self.rng.lognormal(0, 0.1, 200))
        now = self.clock.now()
        return Window(
            now - timedelta(seconds=seconds),
            now,
            self.in_force.id,
            labels,
            operations={"read": OperationWindow(response, response)},
        )

    def blocks(self):
        return [labels for call, labels in self.calls if call == "measure"]


def tried(arena, plan=None, *, seed=1, labels=None, **more):
    return run_trial(
        Switchback(arena, plan or TrialPlan(), Change(BASELINE, PROPOSAL.configuration), labels or {}),
        PROPOSAL,
        clock=arena.clock,
        rng=random.Random(seed),
        trial_id="t1",
        **more,
    )


@pytest.mark.parametrize(
    ("candidate_seconds", "outcome", "stays"),
    [
        (0.007, Outcome.PROMOTED, CANDIDATE),
        (0.013, Outcome.REJECTED, BASELINE),
        (0.030, Outcome.ABORTED, BASELINE),
    ],
)
def test_the_outcome_is_the_truth_and_the_right_one_stays(candidate_seconds, outcome, stays):
    arena = FormulaArena(candidate_seconds)
    trial = tried(arena)
    assert trial.verdict.outcome is outcome
    assert arena.in_force == stays


def test_equal_arms_without_noise_are_equivalent():
    arena = FormulaArena(0.010, noise=0.005)
    trial = tried(arena, TrialPlan(thresholds=Thresholds(futility_alpha=None)))
    assert trial.verdict.outcome is Outcome.EQUIVALENT
    assert arena.in_force == BASELINE


def test_pairs_are_in_random_order_after_a_reference_block():
    arena = FormulaArena(0.0099)
    trial = tried(arena, TrialPlan(max_pairs=30, thresholds=Thresholds(min_pairs=30)))
    arms = [labels["arm"] for labels in arena.blocks()]
    assert arms[0] == "baseline"
    pairs = [tuple(arms[at : at + 2]) for at in range(1, len(arms), 2)]
    assert all(set(pair) == {"baseline", "candidate"} for pair in pairs)
    first = [pair[0] == "candidate" for pair in pairs]
    assert 8 <= sum(first) <= 22
    assert [pair.candidate_first for pair in trial.verdict.pairs] == first


def test_every_block_settles_first():
    arena = FormulaArena(0.007)
    tried(arena)
    kinds = [call for call, _ in arena.calls[:-1]]
    assert kinds == ["switch", "settle", "measure"] * (len(kinds) // 3)
    assert {seconds for call, seconds in arena.calls if call == "settle"} == {2.0}


def test_a_change_on_our_own_side_settles_sooner():
    plan = TrialPlan()
    fewer = Change(BASELINE, BASELINE.replaced({CONCURRENCY: 4}))
    assert plan.settle_seconds_for(Switch.of(fewer, Design.SWITCHBACK)) == 1.0
    assert plan.settle_seconds_for(Switch.of(Change(BASELINE, CANDIDATE), Design.SWITCHBACK)) == 2.0
    assert plan.settle_seconds_for(Switch.of(Change(BASELINE, CANDIDATE), Design.CONCURRENT)) == 1.0
    assert plan.seconds_for(6) == 13 * 7.0


@pytest.mark.parametrize("block", [0, 1, 2, 7])
def test_an_interruption_at_any_block_leaves_the_baseline(block):
    arena = FormulaArena(0.0095)
    arena.fail_at = block
    with pytest.raises(KeyboardInterrupt):
        tried(arena)
    assert arena.in_force == BASELINE


def test_the_deadline_ends_a_trial_undecided():
    arena = FormulaArena(0.0099)
    trial = tried(arena, deadline=Deadline(60.0))
    assert trial.verdict.outcome is Outcome.UNDECIDED
    assert arena.clock.monotonic_seconds() <= 60 + 14
    assert arena.in_force == BASELINE


def test_after_its_fair_share_a_trial_that_tells_nothing_makes_room():
    arena = FormulaArena(0.0097, noise=0.3)
    trial = tried(
        arena,
        TrialPlan(max_pairs=200, thresholds=Thresholds(futility_alpha=None)),
        deadline=Deadline(last_seconds=2000.0, fair_seconds=300.0),
    )
    assert trial.verdict.outcome is Outcome.UNDECIDED
    assert "its time was over" in trial.verdict.reason
    assert 300 <= arena.clock.monotonic_seconds() <= 314


def test_after_its_fair_share_a_trial_that_is_about_to_tell_goes_on():
    arena = FormulaArena(0.0085, noise=0.1)
    trial = tried(arena, TrialPlan(max_pairs=200), deadline=Deadline(last_seconds=2000.0, fair_seconds=60.0))
    assert trial.verdict.outcome is Outcome.PROMOTED
    assert arena.clock.monotonic_seconds() > 91


@pytest.mark.parametrize(
    ("now", "progress", "is_over"),
    [(99, 0.0, False), (100, 0.0, True), (100, 0.19, True), (100, 0.21, False), (100, 1.0, True), (500, 0.99, True)],
)
def test_the_evidence_has_to_grow_fast_enough_for_the_last_moment(now, progress, is_over):
    deadline = Deadline(last_seconds=500.0, fair_seconds=100.0)
    assert deadline.is_over(now, began_seconds=0.0, progress=progress) is is_over


def test_noise_that_hits_one_block_of_the_candidate_does_not_abort():
    arena = FormulaArena(0.008, noise=0.02)
    honest = arena.measure

    def measure(seconds, *, labels):
        # a stall from outside: three blocks in a row, whatever the arm
        slow = 4 <= len(arena.blocks()) <= 6
        arena.latency = {BASELINE.id: 0.040 if slow else 0.010, CANDIDATE.id: 0.032 if slow else 0.008}
        return honest(seconds, labels=labels)

    arena.measure = measure
    assert tried(arena).verdict.outcome is Outcome.PROMOTED


@pytest.mark.parametrize(("stalls", "outcome"), [(1, Outcome.PROMOTED), (30, Outcome.ABORTED)])
def test_a_stall_is_forgiven_once(stalls, outcome):
    arena = FormulaArena(0.008, noise=0.02)
    honest, seen = arena.measure, []

    def measure(seconds, *, labels):
        window = honest(seconds, labels=labels)
        if labels["arm"] == "baseline" or len(seen) >= stalls:
            return window
        seen.append(window)
        # one operation in ten takes a hundred times as long; the median stays
        response = window.response + Histogram.of(np.full(20, 0.8))
        return replace(window, operations={"read": OperationWindow(response, response)})

    arena.measure = measure
    verdict = tried(arena).verdict
    assert verdict.outcome is outcome
    if outcome is Outcome.ABORTED:
        assert len(seen) == 2


def test_nothing_that_runs_is_nothing_decided():
    arena = FormulaArena(0.007)
    arena.measure = lambda seconds, *, labels: (
        arena.clock.sleep(seconds) or Window(arena.clock.now(), arena.clock.now(), arena.in_force.id, labels)
    )
    verdict = tried(arena, TrialPlan(max_pairs=3)).verdict
    assert verdict.outcome is Outcome.UNDECIDED
    assert "nothing was seen to run" in verdict.reason
    assert not verdict.pairs


def test_a_candidate_under_which_nothing_finishes_is_aborted_after_its_first_block():
    arena = FormulaArena(0.007)
    honest = arena.measure

    def measure(seconds, *, labels):
        window = honest(seconds, labels=labels)
        return window if labels["arm"] == "baseline" else replace(window, operations={})

    arena.measure = measure
    verdict = tried(arena).verdict
    assert verdict.outcome is Outcome.ABORTED
    assert "finished per second" in verdict.reason
    assert verdict.ratio == math.inf
    assert [labels["arm"] for labels in arena.blocks()].count("candidate") == 1
    assert arena.in_force == BASELINE


@pytest.mark.parametrize(
    ("at_block", "outcome"), [(0, Outcome.UNDECIDED), (1, Outcome.ABORTED), (8, Outcome.ABORTED)]
)
def test_memory_that_runs_out_ends_the_trial_in_the_middle_of_a_block(at_block, outcome):
    arena = FormulaArena(0.0099)
    honest = arena.measure

    def measure(seconds, *, labels):
        if len(arena.blocks()) == at_block:
            raise MemoryRunsOut("no memory is left")
        return honest(seconds, labels=labels)

    arena.measure = measure
    verdict = tried(arena).verdict
    assert verdict.outcome is outcome
    assert "no memory is left" in verdict.reason
    assert ("before the candidate was tried" in verdict.reason) is (at_block == 0)
    assert len(arena.blocks()) == at_block
    assert arena.in_force == BASELINE


FOREIGN = Configuration({"work_mem": 4096})
FOREIGN_CANDIDATE = FOREIGN.replaced({"work_mem": 8192})
READ, REPORT = (1, 0, 0), (2, 0, 0)


class ForeignArena(FormulaArena):
    """Sessions that are not ours: many short reads and a report, which need not finish under the candidate."""

    def __init__(self, *, report_under_candidate):
        super().__init__(0.009)
        self.report_under_candidate = report_under_candidate

    def measure(self, seconds, *, labels):
        window = super().measure(seconds, labels=labels)
        calls, latency = 1000, window.response.mean_seconds
        statements = {READ: StatementCounters(calls, calls * latency, 0, 0, 0, 0, 0.0)}
        if labels["arm"] == "baseline" or self.report_under_candidate:
            statements[REPORT] = StatementCounters(5, 5.0, 0, 0, 0, 0, 0.0)
        return replace(window, operations={}, statements=statements)


def tried_on_foreign_sessions(arena, plan=None, *, candidate_seconds=0.009):
    arena.latency[FOREIGN.id], arena.latency[FOREIGN_CANDIDATE.id] = 0.010, candidate_seconds
    proposal = Proposal(FOREIGN_CANDIDATE, "user", "to see")
    rng = random.Random(1)
    blocks = Switchback(arena, plan or TrialPlan(), Change(FOREIGN, FOREIGN_CANDIDATE))
    return run_trial(blocks, proposal, clock=arena.clock, rng=rng, trial_id="t1")


def test_a_report_that_stops_finishing_is_no_gain():
    arena = ForeignArena(report_under_candidate=False)
    verdict = tried_on_foreign_sessions(arena).verdict
    assert verdict.outcome is Outcome.ABORTED
    assert "did not finish" in verdict.reason
    assert [labels["arm"] for labels in arena.blocks()].count("candidate") == 2


def test_without_guards_a_report_that_stops_finishing_leaves_no_pair_to_compare():
    arena = ForeignArena(report_under_candidate=False)
    verdict = tried_on_foreign_sessions(arena, TrialPlan(guards=NO_GUARDS, max_pairs=8)).verdict
    assert verdict.outcome is Outcome.UNDECIDED
    assert "too little ran in both blocks" in verdict.reason
    assert not verdict.pairs


def test_where_the_report_finishes_the_faster_reads_win():
    trial = tried_on_foreign_sessions(ForeignArena(report_under_candidate=True))
    assert trial.verdict.outcome is Outcome.PROMOTED
    assert list(trial.effects) == [Measure.MEAN]


LOOKUP = (3, 0, 0)


class TurningPlan(ForeignArena):
    """Reads may get faster under the candidate, while a lookup that took a tenth of the time turns slow."""

    def __init__(self, lookup_ratio, *, seen_in=lambda block: True):
        super().__init__(report_under_candidate=True)
        self.lookup_ratio = lookup_ratio
        self.seen_in = seen_in

    def measure(self, seconds, *, labels):
        window = super().measure(seconds, labels=labels)
        if not self.seen_in(len(self.blocks())):
            return window
        seconds = 100 * 0.016 * (self.lookup_ratio if labels["arm"] == "candidate" else 1.0)
        seconds *= np.exp(0.1 * self.rng.standard_normal())
        lookup = StatementCounters(100, seconds, 0, 0, 0, 0, 0.0)
        return replace(window, statements={**window.statements, LOOKUP: lookup})


def test_a_query_that_turns_slow_vetoes_what_makes_the_whole_faster():
    trial = tried_on_foreign_sessions(TurningPlan(2.0), candidate_seconds=0.005)
    assert trial.verdict.outcome is Outcome.REJECTED
    assert trial.verdict.ratio < 0.9
    assert re.search("query 3 takes [12].* times as long", trial.verdict.reason)
    assert "the limit being 1.5" in trial.verdict.reason
    [slower] = trial.slower
    assert slower.part == "query 3"
    assert slower.share == pytest.approx(0.1, abs=0.02)
    assert 1.5 < slower.ratio.low < 2.0 < slower.ratio.high


def test_a_query_that_gets_a_little_slower_is_reported_and_vetoes_nothing():
    plan = TrialPlan(thresholds=Thresholds(min_pairs=12))
    trial = tried_on_foreign_sessions(TurningPlan(1.3), plan, candidate_seconds=0.005)
    assert trial.verdict.outcome is Outcome.PROMOTED
    assert [effect.part for effect in trial.slower] == ["query 3"]


def test_a_slow_query_that_was_seen_too_seldom_for_proof_holds_the_promotion_up():
    arena = TurningPlan(4.0, seen_in=lambda block: block <= 9)
    trial = tried_on_foreign_sessions(arena, TrialPlan(max_pairs=15), candidate_seconds=0.005)
    assert trial.verdict.outcome is Outcome.UNDECIDED
    assert trial.verdict.ratio_high < 1
    assert "query 3 takes" in trial.verdict.reason
    assert "unproven" in trial.verdict.reason


def test_a_kind_of_operation_that_turns_slow_vetoes_too():
    arena = FormulaArena(0.007)
    honest = arena.measure

    def measure(seconds, *, labels):
        window = honest(seconds, labels=labels)
        slow = 0.010 if labels["arm"] == "baseline" else 0.018
        report = Histogram.of(slow * arena.rng.lognormal(0, 0.1, 20))
        return replace(window, operations={**window.operations, "aggregate": OperationWindow(report, report)})

    arena.measure = measure
    verdict = tried(arena).verdict
    assert verdict.outcome is Outcome.REJECTED
    assert re.search("aggregate takes 1.[78].* times as long", verdict.reason)


def with_reports(arena, under_baseline, under_candidate):
    """Let an arena play reports too, so many in a block of each arm."""
    honest = arena.measure

    def measure(seconds, *, labels):
        window = honest(seconds, labels=labels)
        count = under_baseline if labels["arm"] == "baseline" else under_candidate(labels)
        report = Histogram.of(np.full(count, 0.5))
        ended = {"report": OperationWindow(report, report)} if count else {}
        return replace(window, operations={**window.operations, **ended})

    arena.measure = measure
    return arena


def test_a_kind_of_operation_that_stops_ending_is_no_gain():
    verdict = tried(with_reports(FormulaArena(0.007), 2, lambda _labels: 0)).verdict
    assert verdict.outcome is Outcome.ABORTED
    assert "not one report ended" in verdict.reason
    assert len(verdict.pairs) == 6, "two in a block and twelve times as much time: before any promotion"


def test_a_kind_of_operation_that_ends_seldom_may_miss_blocks():
    coin = random.Random(1)
    arena = with_reports(FormulaArena(0.007), 2, lambda _labels: coin.choice((0, 0, 0, 8)))
    assert tried(arena).verdict.outcome is Outcome.PROMOTED


def test_without_guards_a_kind_may_stop_ending():
    arena = with_reports(FormulaArena(0.007), 8, lambda _labels: 0)
    assert tried(arena, TrialPlan(guards=NO_GUARDS)).verdict.outcome is Outcome.PROMOTED


@pytest.mark.parametrize("empty_blocks", [1, 2])
@pytest.mark.parametrize("measure", [Measure.MEAN, Measure.P99])
def test_a_reference_block_without_operations_is_replaced_by_the_next_baseline_block(measure, empty_blocks):
    arena = FormulaArena(0.007, noise=0.02)
    honest = arena.measure

    def measured(seconds, *, labels):
        window = honest(seconds, labels=labels)
        # what our load sends shows up as statements even where no operation of ours has ended
        window = replace(window, statements={READ: StatementCounters(10, 1.0, 0, 0, 0, 0, 0.0)})
        return window if len(arena.blocks()) > empty_blocks else replace(window, operations={})

    arena.measure = measured
    trial = tried(arena, TrialPlan(measure=measure))
    assert trial.verdict.outcome is Outcome.PROMOTED
    assert trial.verdict.ratio == pytest.approx(0.7, rel=0.1)
    assert set(trial.effects) == {Measure.MEAN, Measure.P95, Measure.P99}


def test_figures_describe_both_arms():
    trial = tried(FormulaArena(0.007))
    assert trial.figures["baseline_mean_seconds"] == pytest.approx(0.010, rel=0.1)
    assert trial.figures["candidate_mean_seconds"] == pytest.approx(0.007, rel=0.1)
    assert trial.figures["candidate_p99_seconds"] > trial.figures["candidate_mean_seconds"]
    assert trial.figures["candidate_measured_seconds"] == 5.0 * len(trial.verdict.pairs)
    assert trial.ended_at > trial.started_at


@pytest.mark.parametrize(("under_the_candidate", "noted"), [(1.0, True), (0.02, False)])
def test_checkpoints_that_hit_one_arm_only_are_counted_and_noted(under_the_candidate, noted):
    arena = FormulaArena(0.007)
    honest = arena.measure

    def measure(seconds, *, labels):
        rates = {"checkpointer.requested_checkpoints_per_second": 0.0}
        if labels["arm"] == "candidate":
            rates = {"checkpointer.requested_checkpoints_per_second": under_the_candidate}
        return replace(honest(seconds, labels=labels), rates=rates)

    arena.measure = measure
    trial = tried(arena)
    assert trial.figures["baseline_checkpoints"] == 0.0
    expected = 5.0 * under_the_candidate * len(trial.verdict.pairs)
    assert trial.figures["candidate_checkpoints"] == pytest.approx(expected)
    assert "candidate_autovacuums" not in trial.figures
    said = f"checkpoints: {expected:.0f} under the candidate, 0 under the baseline"
    assert uneven(trial.figures) == (said if noted else "")


def test_an_arm_that_was_measured_longer_may_have_more_checkpoints():
    figures = {
        "baseline_measured_seconds": 40.0,
        "candidate_measured_seconds": 30.0,
        "baseline_checkpoints": 240.0,
        "candidate_checkpoints": 180.0,
    }
    assert uneven(figures) == ""
    assert uneven(figures | {"candidate_checkpoints": 240.0}).startswith("checkpoints: 240 under the candidate")


def test_each_pair_is_told_as_it_comes():
    told = []
    trial = tried(FormulaArena(0.007), on_pair=lambda pairs, interval: told.append((pairs, interval)))
    assert [pairs for pairs, _ in told] == list(range(1, len(trial.verdict.pairs) + 1))
    assert told[-1][1].high == trial.verdict.ratio_high < 1


@pytest.mark.parametrize("wrong", [{"settle_seconds": 1.0}, {"block_seconds": 0.0}, {"max_pairs": 0}], ids=str)
def test_a_plan_that_cannot_work_is_refused(wrong):
    with pytest.raises(UsageError):
        TrialPlan(**wrong)


class Queue:
    """A load whose queue follows a list of readings."""

    def __init__(self, *waiting):
        self.waiting = list(waiting)
        self.connections = None

    @property
    def counters(self):
        now = self.waiting.pop(0) if len(self.waiting) > 1 else self.waiting[0]
        return LoadCounters(due_total=1000 + now, succeeded_total=900, failed_total=60, skipped_total=40)

    def set_connections(self, connections):
        self.connections = connections

    def replan(self):
        self.replanned_total = getattr(self, "replanned_total", 0) + 1

    def divide(self, arms):
        self.arms = arms


@pytest.mark.parametrize(
    ("waiting", "looks"),
    [((10,), 0), ((900, 500, 50), 2), ((900, 950, 990), 1), ((100_000, *range(99_999, 0, -1)), 60)],
)
def test_a_queue_is_waited_for_while_it_shrinks(waiting, looks):
    clock = VirtualClock()
    drain(Queue(*waiting), clock)
    assert clock.monotonic_seconds() == 0.5 * looks


class Guarded:
    def __init__(self):
        self.calls = []

    def apply(self):
        self.calls.append("apply")

    def withdraw(self):
        self.calls.append("withdraw")

    def session_settings(self, configuration):
        return {"work_mem": str(configuration["work_mem"])}


def arena_of(change, guarded, load=None):
    clock = VirtualClock()
    watch = MemoryWatch(memory_unseen, clock, NO_GUARDS)
    return ServerArena(change, guarded, None, clock=clock, memory=watch, load=load)


def test_the_server_arena_switches_settings_by_the_guard_and_connections_at_the_load():
    guarded, load = Guarded(), Queue(0)
    candidate = CANDIDATE.replaced({CONCURRENCY: 3})
    arena = arena_of(Change(BASELINE, candidate), guarded, load)
    for configuration in (BASELINE, candidate, candidate, BASELINE):
        arena.switch(configuration)
    assert guarded.calls == ["apply", "withdraw"]
    assert load.connections == 8
    assert load.replanned_total == 2, "plans were made under other settings"
    with pytest.raises(ValueError, match="neither"):
        arena.switch(CANDIDATE)


def test_only_our_connections_need_no_new_plans():
    load = Queue(0)
    fewer = BASELINE.replaced({CONCURRENCY: 3})
    arena_of(Change(BASELINE, fewer), Guarded(), load).switch(fewer)
    assert load.connections == 3
    assert not hasattr(load, "replanned_total")


def test_side_by_side_the_server_is_left_alone_until_the_candidate_is_to_stay():
    guarded, load = Guarded(), Queue(0)
    arena = arena_of(Change(BASELINE, CANDIDATE), guarded, load)
    arena.divide([(Arm.CANDIDATE, CANDIDATE), (Arm.BASELINE, BASELINE)])
    assert load.arms == [
        LoadArm(Arm.CANDIDATE, {"work_mem": "8192"}),
        LoadArm(Arm.BASELINE, {"work_mem": "4096"}),
    ]
    assert b"optimization.trials" not in pickle.dumps(load.arms), "a client process would import the room to read it"
    assert guarded.calls == []
    arena.switch(CANDIDATE)
    assert guarded.calls == ["apply"]
    assert load.arms == ()


def test_sessions_are_together_again_where_the_candidate_is_refused_at_last():
    guarded, load = Guarded(), Queue(0)
    arena = arena_of(Change(BASELINE, CANDIDATE), guarded, load)
    arena.divide([(Arm.CANDIDATE, CANDIDATE), (Arm.BASELINE, BASELINE)])

    def refuse():
        raise ChangeRefused("postgresql.conf has an error", "Mend it.")

    guarded.apply = refuse
    with pytest.raises(ChangeRefused):
        arena.switch(CANDIDATE)
    assert load.arms == ()


def test_sessions_of_others_cannot_be_divided():
    arena = arena_of(Change(BASELINE, CANDIDATE), Guarded())
    with pytest.raises(ValueError, match="not ours"):
        arena.divide([(Arm.BASELINE, BASELINE)])


class DividedFormulaArena(FormulaArena):
    """Both arms at the same time: what slows a block slows both."""

    def divide(self, arms):
        self.calls.append(("divide", [(arm, configuration.id) for arm, configuration in arms]))
        self.arms = dict(arms)

    def measure_arms(self, seconds, *, labels):
        shared = np.exp(1.0 * self.rng.standard_normal())
        windows = {}
        for arm, configuration in self.arms.items():
            self.in_force = configuration
            windows[arm] = FormulaArena.measure(self, 0.0, labels=labels)
            response = windows[arm].operations["read"].response
            slowed = Histogram.of(np.full(200, response.mean_seconds * shared))
            windows[arm] = replace(windows[arm], operations={"read": OperationWindow(slowed, slowed)})
        self.in_force = BASELINE
        self.clock.sleep(seconds)
        return windows


def tried_side_by_side(arena, plan=None):
    blocks = Concurrent(arena, plan or TrialPlan(guards=NO_GUARDS), Change(BASELINE, CANDIDATE))
    return run_trial(blocks, PROPOSAL, clock=arena.clock, rng=random.Random(1), trial_id="t1")


@pytest.mark.parametrize(("candidate_seconds", "outcome"), [(0.008, Outcome.PROMOTED), (0.012, Outcome.REJECTED)])
def test_side_by_side_a_common_noise_of_100_percent_hides_nothing(candidate_seconds, outcome):
    arena = DividedFormulaArena(candidate_seconds)
    trial = tried_side_by_side(arena)
    assert trial.verdict.outcome is outcome
    assert trial.design is Design.CONCURRENT
    assert len(trial.verdict.pairs) < 15
    # a settle of our own side and a block for each pair and the reference; nobody was ever switched but at the end
    assert arena.clock.monotonic_seconds() == pytest.approx(6.0 * (len(trial.verdict.pairs) + 1))
    assert [call for call in arena.calls if call[0] == "switch"] == [
        ("switch", CANDIDATE.id if outcome is Outcome.PROMOTED else BASELINE.id)
    ]


def test_side_by_side_a_coin_says_which_part_gets_the_candidate_and_the_reference_has_none():
    plan = TrialPlan(max_pairs=30, thresholds=Thresholds(min_pairs=30), guards=NO_GUARDS)
    arena = DividedFormulaArena(0.0099)
    trial = tried_side_by_side(arena, plan)
    reference, *pairs = [arms for call, arms in arena.calls if call == "divide"]
    assert {configuration for _, configuration in reference} == {BASELINE.id}
    first = [arms[0] == (Arm.CANDIDATE, CANDIDATE.id) for arms in pairs]
    assert 8 <= sum(first) <= 22
    assert [pair.candidate_first for pair in trial.verdict.pairs] == first


def test_side_by_side_a_terrible_candidate_is_aborted_without_another_block():
    arena = DividedFormulaArena(0.1)
    trial = tried_side_by_side(arena, TrialPlan())
    assert trial.verdict.outcome is Outcome.ABORTED
    assert len([call for call, _ in arena.calls if call == "divide"]) == 2
    assert arena.in_force == BASELINE


def test_side_by_side_an_interruption_puts_the_sessions_together_again():
    arena = DividedFormulaArena(0.007)
    arena.fail_at = 6
    with pytest.raises(KeyboardInterrupt):
        tried_side_by_side(arena)
    assert arena.calls[-1] == ("switch", BASELINE.id)
