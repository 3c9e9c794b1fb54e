"""The offline tuner on the simulated target: it finds what is better, proves it, and takes down what is not."""

import math
from dataclasses import replace

import numpy as np
import pytest
from offline_bench import OfflineBench
from synthetic_windows import make_window

from ml_postgres_optimization.errors import ForeignChange, ServerUnreachable
from ml_postgres_optimization.knobs.configuration import Change
from ml_postgres_optimization.knobs.rules import rule_configuration
from ml_postgres_optimization.target.simulated import AutoregressiveNoise, WhiteNoise
from ml_postgres_optimization.trials import Design, MemoryRunsOut, Outcome, TrialPlan
from ml_postgres_optimization.tuning import Budget, Draft, Stage
from ml_postgres_optimization.tuning.offline import Noise, OfflineTuner, Screening
from ml_postgres_optimization.tuning.offline.course import Course, Latest


@pytest.fixture
def bench(tmp_path):
    with OfflineBench(tmp_path, noise=WhiteNoise(0.1)) as made:
        yield made


def tuner(bench):
    return OfflineTuner(bench.laboratory, bench.study(), bench.plan, subscribers=[bench.events.append])


def rules(bench):
    def advised(incumbent):
        told = rule_configuration(bench.target.machine, bench.catalogue, bench.settings, connections=8, active=8)
        return incumbent.replaced(told.configuration)

    return [Draft(advised, "rules", "what the rules say of this machine")]


def test_what_is_found_is_proven_and_stays_restart_included(bench):
    tuned = tuner(bench).run(bench.initial, rules(bench), Budget(1800))
    assert tuned.trials[0].design is Design.RESTART
    assert tuned.is_proven
    assert bench.in_force() == tuned.best == tuned.in_force
    true_ratio = bench.truth(tuned.best) / bench.truth(bench.initial)
    assert true_ratio < 0.75
    assert tuned.proven.low < true_ratio < tuned.proven.high
    assert [trial.intent.trial_id for trial in bench.journal.state.confirmed] == [tuned.proof.id]
    assert not bench.journal.state.unfinished


def test_an_equal_candidate_that_was_preferred_by_chance_is_not_proven(bench):
    # a knob that the simulated server does not feel
    drafts = [Draft.of({"bgwriter_lru_maxpages": 200}, "user", "to see")]
    bench.only("bgwriter_lru_maxpages")
    tuned = tuner(bench).run(bench.initial, drafts, Budget(900, patience=1))
    assert not tuned.is_proven
    assert bench.in_force() == bench.initial
    assert tuned.in_force == bench.initial


def test_without_a_proof_what_was_in_force_is_in_force_again(bench):
    tuned = tuner(bench).run(bench.initial, rules(bench), Budget(400, prove=False))
    assert tuned.best != bench.initial
    assert tuned.proof is None
    assert bench.in_force() == bench.initial
    assert not bench.journal.state.unfinished


def test_what_could_not_be_proven_in_time_is_not_tried_and_said_once(bench):
    advised = rules(bench)[0]
    without = replace(Draft.of({"work_mem": 16384}, "rules", "without a restart"), is_alternative=True)
    restarts = [advised, replace(Draft.of({"shared_buffers": 32768}, "rules", "with one"), is_alternative=True)]
    needed = bench.plan.seconds_for(6, design=Design.RESTART)
    tuned = tuner(bench).run(bench.initial, [*restarts, without], Budget(1.5 * needed, patience=0))
    assert [trial.design for trial in tuned.trials] == [Design.SWITCHBACK]
    (told,) = [event.message for event in bench.events if event.stage is Stage.REFUSED]
    assert "a change that needs a restart" in told


def test_drafts_count_as_trials_of_the_budget(bench):
    drafts = [Draft.of({"work_mem": value}, "user", "to see") for value in (8192, 16384, 32768)]
    tuned = tuner(bench).run(bench.initial, drafts, Budget(1800, trials=2, prove=False))
    assert len(tuned.trials) == 2


def test_a_block_of_the_incumbent_in_which_nothing_ended_is_left_out(bench):
    silent = {2}
    seen = 0

    def next_block(window):
        nonlocal seen
        seen += 1
        bench.target._rate_per_second = 0.0 if seen in silent else 100.0

    bench.on_window_do = next_block
    (good,) = rules(bench)
    tuned = tuner(bench).run(
        bench.initial, [replace(good, values=lambda _: {"work_mem": 65536})], Budget(200, prove=False)
    )
    first = tuned.trials[0]
    assert first.verdict.outcome is Outcome.PREFERRED
    assert math.isfinite(first.verdict.ratio)


def test_the_search_leaves_the_proof_of_a_restart_its_time(bench):
    needed = bench.plan.seconds_for(6, design=Design.RESTART)
    tuned = tuner(bench).run(bench.initial, rules(bench), Budget(2.2 * needed, patience=100, least_gain=-1.0))
    assert tuned.trials[0].design is Design.RESTART
    assert tuned.trials[0].verdict.outcome is Outcome.PREFERRED
    assert len(tuned.proof.verdict.pairs) >= 6


@pytest.mark.parametrize("stage", [Stage.PROPOSED, Stage.PROVING])
def test_a_change_of_somebody_else_ends_it(bench, stage):
    def by_hand(window):
        if stage in [event.stage for event in bench.events]:
            bench.target.write("work_mem", 5000)
            bench.target.reload()

    bench.on_window_do = by_hand
    with pytest.raises(ForeignChange, match="work_mem"):
        tuner(bench).run(bench.initial, rules(bench), Budget(1200))
    assert bench.in_force()["work_mem"] == 5000
    assert not bench.journal.state.unfinished


def test_it_ends_in_time(bench):
    begun = bench.clock.monotonic_seconds()
    tuner(bench).run(bench.initial, rules(bench), Budget(600))
    pair = bench.plan.seconds_for(1, design=Design.RESTART)
    assert bench.clock.monotonic_seconds() - begun <= 600 + pair


@pytest.mark.parametrize("seconds", [100, 150, 200, 250, 300])
def test_a_screening_ends_with_the_time_of_the_search(bench, seconds):
    begun = bench.clock.monotonic_seconds()
    tuner(bench).run(bench.initial, rules(bench), Budget(seconds, prove=False, least_gain=-1.0))
    pair = bench.plan.seconds_for(1, design=Design.RESTART)
    assert bench.clock.monotonic_seconds() - begun <= seconds + pair


def test_what_a_symptom_asks_for_is_tried_with_the_rules_and_by_itself(bench):
    # the simulated server spills under the rules still
    tuned = tuner(bench).run(bench.initial, rules(bench), Budget(900, patience=1, prove=False))
    first, second, *_ = tuned.trials
    assert "temporary files" in first.proposal.reason
    assert {"shared_buffers", "work_mem"} <= Change(first.baseline, first.proposal.configuration).knobs.keys()
    assert second.proposal.origin == "symptom"
    (doubled,) = Change(second.baseline, second.proposal.configuration).knobs.items()
    by_rules = first.proposal.configuration["work_mem"]
    assert doubled == ("work_mem", (by_rules, 2 * by_rules))


def test_a_draft_that_was_tried_is_not_tried_again_as_its_alternative(bench):
    slow = Draft.of({"work_mem": 1024}, "rules", "bad")
    # all that the symptom asks for, the draft says otherwise: together they are the draft
    tuned = tuner(bench).run(bench.initial, [slow], Budget(400, patience=1, prove=False))
    assert [trial.proposal.configuration["work_mem"] for trial in tuned.trials].count(1024) == 1


def test_a_study_that_cannot_be_read_is_told_of(bench, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "study.journal").write_text("not JSON at all\n{}\n")
    study = bench.study(elsewhere=[broken])
    OfflineTuner(bench.laboratory, study, bench.plan, subscribers=[bench.events.append]).run(
        bench.initial, [], Budget(100, patience=0, prove=False)
    )
    told = [progress.message for progress in bench.events if progress.stage is Stage.UNREAD]
    assert [str(broken) in message for message in told] == [True]


@pytest.mark.parametrize("at", [3, 12, 25, pytest.param(60, marks=pytest.mark.long)])
def test_a_failure_takes_every_rung_down(bench, at):
    seen = 0

    def fail(_window):
        nonlocal seen
        seen += 1
        if seen == at:
            raise ServerUnreachable("The server is gone.", "Start it.")

    bench.on_window_do = fail
    with pytest.raises(ServerUnreachable):
        tuner(bench).run(bench.initial, rules(bench), Budget(3600, patience=100, least_gain=0.0))
    assert bench.in_force() == bench.initial
    assert not bench.journal.state.unfinished


def test_nothing_is_searched_where_nothing_runs(bench):
    bench.target._rate_per_second = 0.0
    tuned = tuner(bench).run(bench.initial, rules(bench), Budget(600))
    assert (tuned.best, tuned.trials) == (bench.initial, ())
    assert bench.events[-1].stage is Stage.QUIET


def test_a_screening_begins_with_the_candidate_beside_blocks_that_are_there(bench):
    tuner(bench).run(bench.initial, [Draft.of({"jit": False}, "user", "to see")], Budget(60, patience=0, prove=False))
    (decided,) = [event.trial for event in bench.events if event.stage is Stage.DECIDED]
    labels = [window.labels for window in bench.store.windows() if window.labels.get("trial") == decided.id]
    figures = decided.figures
    assert figures["candidate_measured_seconds"] == pytest.approx(5.0 * len(decided.verdict.pairs))
    assert decided.verdict.ratio == pytest.approx(
        figures["candidate_mean_seconds"] / figures["baseline_mean_seconds"], rel=0.1
    )
    assert figures["candidate_error_ratio"] >= 0.0
    arms = [str(each["arm"]) for each in labels]
    assert arms == ["candidate", "baseline"] * (len(arms) // 2) + ["candidate"]
    assert arms.count("candidate") == len(decided.verdict.pairs)


def test_candidates_that_one_block_shows_to_be_slow_share_the_incumbent_s_blocks(bench):
    drafts = [Draft.of({"work_mem": value}, "forest", "bad") for value in (1024, 1100, 1200, 1300, 1400, 1500)]
    slow = [Draft(draft.values, "rules", draft.reason) for draft in drafts]
    tuner(bench).run(bench.initial, slow, Budget(400, patience=0, prove=False))
    arms = [str(window.labels["arm"]) for window in bench.store.windows() if "arm" in window.labels]
    assert arms.count("baseline") < arms.count("candidate")
    longest = max(len(run) for run in "".join(arm[0] for arm in arms).split("b"))
    assert longest <= 4, "the incumbent is looked at again now and then"


@pytest.mark.parametrize("seed", range(2))
def test_under_noise_that_lasts_it_never_ends_with_what_is_worse(tmp_path, seed):
    with OfflineBench(tmp_path, seed=seed, noise=AutoregressiveNoise(0.2, 0.8)) as bench:
        tuned = tuner(bench).run(bench.initial, rules(bench), Budget(1800))
        assert bench.truth(tuned.in_force) <= bench.truth(bench.initial) * 1.001
        ratios = [math.log(trial.verdict.ratio) for trial in tuned.trials if trial.verdict.outcome.stays]
        assert all(trial.verdict.outcome is not Outcome.PROMOTED for trial in tuned.trials)
        assert sum(ratios) < 0


class BlocksUntilMemoryRunsOut:
    """Blocks in turn of one window, until the one at which no memory is left."""

    def __init__(self, window, plan, at):
        self.plan, self.design = plan, Design.SWITCHBACK
        self._window, self._left = window, at

    def block(self, _arm):
        if self._left == 0:
            raise MemoryRunsOut("no memory is left")
        self._left -= 1
        return self._window


@pytest.mark.parametrize(("at", "outcome"), [(0, Outcome.ABORTED), (1, Outcome.UNDECIDED), (2, Outcome.ABORTED)])
def test_memory_that_runs_out_speaks_against_the_candidate_in_its_own_blocks_only(bench, at, outcome):
    tuner(bench).run(bench.initial, [], Budget(60, patience=0, prove=False))
    window = bench.store.windows()[-1]
    latest = Latest([window])
    course = Course(
        BlocksUntilMemoryRunsOut(window, bench.plan, at),
        latest,
        Screening(),
        Noise(0.1),
        on_block=lambda *_: None,
        has_time=lambda: True,
    )
    verdict = course.verdict()
    assert verdict.outcome is outcome
    assert "no memory is left" in verdict.reason


def test_a_block_of_a_candidate_that_is_cut_off_took_its_time_too(bench):
    tuner(bench).run(bench.initial, [], Budget(60, patience=0, prove=False))
    window = bench.store.windows()[-1]
    latest = Latest([window])
    for _ in range(3):
        blocks = BlocksUntilMemoryRunsOut(window, bench.plan, 0)
        screening, noise = Screening(), Noise(0.1)
        Course(blocks, latest, screening, noise, on_block=lambda *_: None, has_time=lambda: True).verdict()
    assert latest.is_stale


class BlocksOfWindows:
    """Blocks in turn, each of the window of its arm."""

    def __init__(self, plan, **windows):
        self.plan, self.design = plan, Design.SWITCHBACK
        self._windows = windows

    def block(self, arm):
        return self._windows[str(arm)]


@pytest.mark.parametrize(("left_out", "outcome"), [({"read"}, Outcome.ABORTED), (set(), Outcome.PREFERRED)])
def test_a_kind_of_operation_that_stops_ending_is_preferred_by_no_screening(bench, left_out, outcome):
    baseline = make_window(0, mean_seconds=0.01, rng=np.random.default_rng(1))
    candidate = make_window(1, mean_seconds=0.005, rng=np.random.default_rng(2))
    ended = {kind: work for kind, work in candidate.operations.items() if kind not in left_out}
    blocks = BlocksOfWindows(bench.plan, baseline=baseline, candidate=replace(candidate, operations=ended))
    course = Course(
        blocks, Latest([baseline]), Screening(), Noise(0.1), on_block=lambda *_: None, has_time=lambda: True
    )
    verdict = course.verdict()
    assert verdict.outcome is outcome
    assert ("not one read ended" in verdict.reason) == bool(left_out)


def test_plans_for_restarts_are_longer():
    plan = TrialPlan(block_seconds=5)
    assert plan.seconds_for(1, design=Design.RESTART) > plan.seconds_for(1)
