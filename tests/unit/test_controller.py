"""The controller on the simulated target: it finds what is better, and leaves the server well whatever happens."""

import math
import random

import pytest

from ml_postgres_optimization.errors import ChangeRefused, ServerUnreachable, TargetError
from ml_postgres_optimization.knobs.catalogue import load_catalogue
from ml_postgres_optimization.knobs.configuration import CONCURRENCY
from ml_postgres_optimization.knobs.rules import rule_configuration
from ml_postgres_optimization.safety.guard import Guard
from ml_postgres_optimization.safety.journal import Journal
from ml_postgres_optimization.target.simulated import AutoregressiveNoise, SimulatedTarget, WhiteNoise
from ml_postgres_optimization.target.simulated.role_settings import APPLICATION
from ml_postgres_optimization.telemetry import MemoryStore, Recorder, VirtualClock
from ml_postgres_optimization.trials import Design, Measure, Outcome, Thresholds, TrialPlan
from ml_postgres_optimization.tuning import Budget, Controller, Draft, Laboratory, Stage, open_study, rule_drafts
from ml_postgres_optimization.workload import LoadCounters

CONNECTIONS = 40


class Bench:
    """A simulated server with everything around it, on a clock of its own."""

    def __init__(self, folder, *, seed=1, noise=None, plan=None, connections=CONNECTIONS):
        self.clock = VirtualClock()
        self.target = SimulatedTarget(
            self.clock, seed=seed, noise=noise, concurrency=connections, rate_per_second=100.0
        )
        settings = self.target.settings(load_catalogue().settings_needed)
        self.catalogue = load_catalogue().confront(settings, 15, self.target.machine)
        self.settings = settings
        self.folder = folder
        self.journal = Journal(folder).__enter__()
        self.initial = self.catalogue.configuration_of(settings, {CONCURRENCY: connections})
        guard = Guard(
            self.target,
            catalogue=self.catalogue,
            machine=self.target.machine,
            journal=self.journal,
            capabilities=self.target.capabilities,
            roles=[APPLICATION],
        )
        self.store = MemoryStore()
        self.laboratory = Laboratory(
            guard=guard,
            recorder=Recorder(
                self.target, self.clock, samples=self.target.samples, subscribers=[self.store.add, self.on_window]
            ),
            clock=self.clock,
            rng=random.Random(seed),
            load=self,
            labels={"run": "test"},
        )
        self.plan = plan or TrialPlan()
        self.seed = seed
        self.events = []
        self.on_window_do = None
        self.replanned = 0
        self.held = []

    def set_connections(self, connections):
        self.target.concurrency = connections

    def hold_below(self, ceiling):
        self.held.append(ceiling)

    def can_divide(self, settings):
        return False

    def divide(self, arms):
        raise AssertionError("it said that it cannot")

    def replan(self):
        self.replanned += 1

    @property
    def counters(self):
        return LoadCounters()

    def on_window(self, window):
        if self.on_window_do:
            self.on_window_do(window)

    def in_force(self):
        settings = self.target.settings(self.initial)
        return self.catalogue.configuration_of(settings, {CONCURRENCY: self.target.concurrency})

    def study(self, folder=None, *, elsewhere=()):
        return open_study(
            self.laboratory, self.initial, folder=folder, workload="test", seed=self.seed, elsewhere=elsewhere
        )

    def controller(self, study=None):
        return Controller(self.laboratory, study or self.study(), self.plan, subscribers=[self.events.append])

    def rules(self):
        def advise(incumbent):
            active = int(incumbent[CONCURRENCY])
            return rule_configuration(self.target.machine, self.catalogue, self.settings, active=active).configuration

        return rule_drafts(advise, self.initial)

    def stages(self):
        return [event.stage for event in self.events]

    def truth(self, configuration):
        return self.target.latency_seconds(configuration, int(configuration[CONCURRENCY]))


@pytest.fixture
def bench(tmp_path):
    made = Bench(tmp_path)
    yield made
    made.journal.__exit__(None, None, None)


def test_the_rules_are_promoted_and_the_gain_is_as_the_surface_says(bench):
    ledger = bench.controller().run(bench.initial, bench.rules(), Budget(1500, patience=2))
    assert ledger.promoted[0].proposal.configuration[CONCURRENCY] == 5
    assert bench.in_force() == ledger.incumbent
    true_ratio = bench.truth(ledger.incumbent) / bench.truth(bench.initial)
    assert true_ratio < 0.5
    assert ledger.proven is not None
    assert ledger.proven.low < true_ratio < ledger.proven.high
    assert ledger.accumulated.low < true_ratio < ledger.accumulated.high
    assert ledger.proven.ratio == pytest.approx(true_ratio, rel=0.1)


def test_the_proof_is_a_switchback_whatever_was_promoted(bench, monkeypatch):
    designs, hold = [], Laboratory.hold

    def noted(laboratory, *arguments, design=None, **more):
        designs.append(design)
        return hold(laboratory, *arguments, design=design, **more)

    monkeypatch.setattr(Laboratory, "hold", noted)
    ledger = bench.controller().run(bench.initial, bench.rules(), Budget(1500, patience=2))
    assert ledger.proof is not None
    *trials, proof = designs
    assert set(trials) == {None}
    assert proof is Design.SWITCHBACK


def test_the_time_kept_for_the_proof_is_lent_as_long_as_there_is_nothing_to_prove(bench):
    # six pairs take 78 s, and a third of the 100 s would be kept
    ledger = bench.controller().run(bench.initial, bench.rules(), Budget(100))
    assert [trial.verdict.outcome for trial in ledger.trials] == [Outcome.PROMOTED]
    assert ledger.proof is None
    assert "the trial itself is the evidence" in bench.events[-1].message
    comparison = ledger.comparison
    assert not comparison.is_proof
    true_ratio = bench.truth(ledger.incumbent) / bench.truth(bench.initial)
    assert comparison.ratios[Measure.MEAN].low < true_ratio < comparison.ratios[Measure.MEAN].high
    assert comparison.optimised_seconds[Measure.P99] < comparison.initial_seconds[Measure.P99]


def test_the_search_goes_on_from_the_rules(bench):
    ledger = bench.controller().run(bench.initial, bench.rules(), Budget(6 * 3600, patience=15, prove=False))
    by_rules = [trial for trial in ledger.promoted if trial.proposal.origin == "rules"]
    by_search = [trial for trial in ledger.promoted if trial.proposal.origin == "forest"]
    assert by_rules
    assert by_search
    assert bench.truth(ledger.incumbent) < bench.truth(by_rules[-1].proposal.configuration)
    assert bench.stages()[-1] is Stage.QUIET


def test_symptoms_are_those_under_what_the_drafts_left(tmp_path):
    def symptoms(folder, drafts):
        bench = Bench(folder, connections=8)
        ledger = bench.controller().run(bench.initial, drafts, Budget(6 * 3600, patience=1, prove=False))
        return [trial for trial in ledger.trials if trial.proposal.origin == "symptom"]

    (spilling, *_) = symptoms(tmp_path / "as it is", [])
    (better, *_) = symptoms(tmp_path / "better", [Draft.of({"work_mem": 14336}, "rules", "half of a cure")])
    for trial, work_mem in ((spilling, 4096), (better, 14336)):
        assert "temporary files" in trial.proposal.reason
        assert trial.baseline["work_mem"] == work_mem
        assert trial.proposal.configuration["work_mem"] == 2 * work_mem
    assert spilling.proposal.reason != better.proposal.reason, "less is spilled by then"


@pytest.mark.parametrize("noise", [WhiteNoise(0.3), AutoregressiveNoise(0.3, 60.0)], ids=["white", "autoregressive"])
def test_noise_promotes_nothing(tmp_path, noise):
    bench = Bench(tmp_path, noise=noise, plan=TrialPlan(max_pairs=12))
    # a knob that does nothing on the simulated server
    drafts = [Draft.of({"bgwriter_lru_maxpages": pages}, "user", "an A/A trial") for pages in range(101, 121)]
    ledger = bench.controller().run(bench.initial, drafts, Budget(1e6, patience=0))
    assert len(ledger.trials) == 20
    assert len(ledger.promoted) <= 1
    assert ledger.promoted or bench.in_force() == bench.initial


def test_a_candidate_that_is_clearly_worse_is_stopped_in_its_first_block(tmp_path):
    bench = Bench(tmp_path, connections=8)
    drafts = [Draft.of({CONCURRENCY: 90}, "user", "far too many")]
    (trial,) = bench.controller().run(bench.initial, drafts, Budget(600, patience=0)).trials
    assert trial.verdict.outcome is Outcome.ABORTED
    assert not trial.verdict.pairs
    assert trial.verdict.ratio == pytest.approx(3.5, rel=0.1)
    assert "limit being 2 times" in trial.verdict.reason
    assert bench.in_force() == bench.initial


def test_a_worse_candidate_is_rejected_and_put_back(bench):
    drafts = [Draft.of({CONCURRENCY: 55}, "user", "still more")]
    (trial,) = bench.controller().run(bench.initial, drafts, Budget(1200, patience=0)).trials
    assert trial.verdict.outcome is Outcome.REJECTED
    assert bench.in_force() == bench.initial


@pytest.mark.parametrize(
    "values", [{"fsync": False}, {"full_page_writes": False}, {"work_mem": 2**30}, {"shared_buffers": 2**18}], ids=str
)
def test_what_is_forbidden_is_refused_and_nothing_changes(bench, values):
    ledger = bench.controller().run(bench.initial, [Draft.of(values, "user", "a dare")], Budget(600, patience=0))
    assert not ledger.trials
    assert Stage.REFUSED in bench.stages()
    assert bench.in_force() == bench.initial


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), ServerUnreachable("gone", "wait"), ZeroDivisionError()], ids=repr
)
def test_an_exception_in_a_trial_puts_the_baseline_back(bench, error):
    def fail(window):
        if window.labels.get("arm") == "candidate":
            raise error

    bench.on_window_do = fail
    with pytest.raises(type(error)):
        bench.controller().run(bench.initial, bench.rules()[-1:], Budget(600))
    assert bench.in_force() == bench.initial
    assert not bench.journal.state.unfinished


def test_an_exception_after_a_promotion_leaves_the_promoted_one(bench):
    def fail(window):
        if window.labels.get("arm") == "candidate" and bench.stages().count(Stage.DECIDED) == 1:
            raise KeyboardInterrupt

    bench.on_window_do = fail
    with pytest.raises(KeyboardInterrupt):
        bench.controller().run(bench.initial, bench.rules(), Budget(3000))
    decided = [event for event in bench.events if event.stage is Stage.DECIDED]
    assert decided[0].trial.verdict.outcome is Outcome.PROMOTED
    assert bench.in_force() == decided[0].trial.proposal.configuration


def test_a_put_back_that_the_server_refuses_stops_everything(bench, monkeypatch):
    """A line that somebody breaks meanwhile keeps the reload out: what is on trial stays, and must be told."""
    reload = bench.target.reload

    def refuse():
        if any(window.labels.get("arm") == "candidate" for window in bench.store.windows()):
            raise ChangeRefused("The configuration was not reloaded: postgresql.conf, line 817", "Mend that line.")
        reload()

    monkeypatch.setattr(bench.target, "reload", refuse)
    with pytest.raises(TargetError, match=r"could not be put back yet: .* line 817") as stopped:
        bench.controller().run(bench.initial, bench.rules()[-1:], Budget(600))
    assert "stays unfinished, and the next start undoes it" in " ".join(stopped.value.__notes__)
    assert len(bench.journal.state.unfinished) == 1


def test_what_was_promoted_early_is_proven_however_short_the_run(tmp_path):
    for seed in range(6):
        bench = Bench(tmp_path / str(seed), seed=seed)
        ledger = bench.controller().run(bench.initial, bench.rules(), Budget(400))
        assert ledger.promoted
        assert ledger.proof is not None
        assert len(ledger.proof.verdict.pairs) >= 6
        bench.journal.__exit__(None, None, None)


def test_the_budget_is_kept(bench):
    began = bench.clock.monotonic_seconds()
    bench.controller().run(bench.initial, bench.rules(), Budget(300))
    assert bench.clock.monotonic_seconds() - began <= 300 + 2 * (bench.plan.block_seconds + bench.plan.settle_seconds)


def test_a_trial_that_tells_nothing_leaves_time_to_others(tmp_path):
    plan = TrialPlan(max_pairs=10_000, thresholds=Thresholds(futility_alpha=None))
    bench = Bench(tmp_path, noise=WhiteNoise(0.5), plan=plan)
    drafts = [Draft.of({"bgwriter_lru_maxpages": 100 * number}, "user", "no effect") for number in (2, 3, 4)]
    ledger = bench.controller().run(bench.initial, drafts, Budget(4000, prove=False))
    shares = [(trial.ended_at - trial.started_at).total_seconds() / 4000 for trial in ledger.trials[:3]]
    assert [trial.verdict.outcome for trial in ledger.trials[:3]] == [Outcome.UNDECIDED] * 3
    assert shares == pytest.approx([1 / 2, 1 / 4, 1 / 8], abs=0.02)


def test_too_little_time_tries_nothing(bench):
    ledger = bench.controller().run(bench.initial, bench.rules(), Budget(20))
    assert not ledger.trials
    assert bench.events[-1].stage is Stage.QUIET


def test_a_server_on_which_nothing_runs_is_left_alone(tmp_path):
    bench = Bench(tmp_path)
    bench.target._rate_per_second = 0.0
    ledger = bench.controller().run(bench.initial, bench.rules(), Budget(600))
    assert not ledger.trials
    assert bench.stages() == [Stage.WATCHED, Stage.QUIET]


def test_every_window_of_a_trial_says_what_it_belongs_to(bench):
    bench.controller().run(bench.initial, bench.rules()[:1], Budget(120, patience=0, prove=False))
    blocks = [window for window in bench.store.windows() if window.labels["phase"] == "trial"]
    assert {window.labels["arm"] for window in blocks} == {"baseline", "candidate"}
    assert len({window.labels["trial"] for window in blocks}) == 1
    assert len({window.configuration_id for window in blocks}) == 2


def test_a_study_that_cannot_be_read_is_told_of(bench, tmp_path):
    (tmp_path / "study.journal").write_text("not JSON at all\n{}\n")
    bench.controller(bench.study(elsewhere=[tmp_path])).run(bench.initial, [], Budget(60, patience=0, prove=False))
    told = [progress.message for progress in bench.events if progress.stage is Stage.UNREAD]
    assert [str(tmp_path) in message for message in told] == [True]


def test_a_study_is_taken_up_again_where_the_promoted_configuration_left_it(bench, tmp_path):
    study = bench.study(tmp_path)
    ledger = bench.controller(study).run(bench.initial, bench.rules(), Budget(900, patience=0, prove=False))
    assert ledger.promoted
    later = open_study(bench.laboratory, ledger.incumbent, folder=tmp_path, workload="test", seed=2)
    assert later.study.study_name == study.study.study_name
    values = {trial.user_attrs["configuration"]: trial.value for trial in later.study.trials}
    assert values[ledger.incumbent.id] == pytest.approx(math.log(ledger.accumulated.ratio), abs=1e-9)
    other = open_study(
        bench.laboratory, bench.initial.replaced({"work_mem": 5000}), folder=tmp_path, workload="test", seed=2
    )
    assert other.study.study_name != study.study.study_name


def test_what_a_guard_refuses_is_never_told_as_a_value(bench, monkeypatch):
    study = bench.study()

    def refuse(change, trial_id):
        raise ChangeRefused("no", "no")

    monkeypatch.setattr(bench.laboratory.guard, "trial", refuse)
    ledger = bench.controller(study).run(bench.initial, [], Budget(600, patience=3))
    assert not ledger.trials
    assert [trial.state.name for trial in study.study.trials] == ["COMPLETE", "PRUNED", "PRUNED", "PRUNED"]


def test_a_change_of_somebody_else_ends_it_and_speaks_against_no_proposal(bench):
    study = bench.study()

    def by_hand(window):
        if window.labels.get("phase") == "watch":
            bench.target.write("work_mem", 5000)
            bench.target.reload()

    bench.on_window_do = by_hand
    controller = bench.controller(study)
    assert not controller.run(bench.initial, [], Budget(600, patience=3)).trials
    (told,) = [event.message for event in bench.events if event.stage is Stage.OVERTAKEN]
    assert "work_mem" in told
    assert not controller.try_one(bench.initial, [], Budget(600), window=bench.store.windows()[0]).trials
    assert [trial.state.name for trial in study.study.trials] == ["COMPLETE", "FAIL"]
    assert bench.in_force()["work_mem"] == 5000


def test_no_more_trials_are_held_than_the_budget_has(bench):
    ledger = bench.controller().run(bench.initial, bench.rules(), Budget(1e6, trials=3, prove=False))
    assert len(ledger.trials) == 3
    assert "budget of 3 trials" in bench.events[-1].message
    assert not bench.controller().run(bench.initial, bench.rules(), Budget(1e6, trials=0, prove=False)).trials


def test_the_search_stops_where_less_is_expected_than_is_worth_a_trial(bench):
    study = bench.study()
    study.expected_gain = lambda _over: 0.02 if len(study.study.trials) < 3 else 0.004
    ledger = bench.controller(study).run(bench.initial, [], Budget(1e6, prove=False))
    assert len(ledger.trials) == 2
    assert bench.events[-1].message == "the next trial is expected to gain 0.40%, less than what is worth one"
    again = bench.controller(study).run(ledger.incumbent, [], Budget(1e6, trials=1, least_gain=0.0, prove=False))
    assert len(again.trials) == 1


def test_a_study_knows_which_load_and_machine_it_is_of(bench):
    study = bench.study()
    bench.controller(study).run(bench.initial, bench.rules()[:1], Budget(1e6, trials=1, prove=False))
    context = study.study.user_attrs["context"]
    assert {"load.log2_per_second", "machine.log2_cpus", "machine.log2_memory_bytes"} <= context.keys()
    assert study.study.trials[-1].user_attrs["context"] == context
