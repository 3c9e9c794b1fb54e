"""Trials, the controller and the simulation on a real server, with real load."""

import random
import time
from contextlib import contextmanager

import optuna
import psycopg
import pytest

from ml_postgres_optimization.knobs.catalogue import load_catalogue
from ml_postgres_optimization.knobs.configuration import CONCURRENCY, Change
from ml_postgres_optimization.safety.guard import Guard
from ml_postgres_optimization.safety.journal import Journal
from ml_postgres_optimization.target.postgres.connection import resolve_connection
from ml_postgres_optimization.target.postgres.server import PostgresTarget
from ml_postgres_optimization.telemetry import MemoryStore, Recorder, SystemClock
from ml_postgres_optimization.telemetry.recorder import no_samples
from ml_postgres_optimization.trials import NO_GUARDS, Design, Outcome, Proposal, Thresholds, TrialPlan
from ml_postgres_optimization.tuning import (
    Budget,
    Controller,
    Draft,
    Laboratory,
    SearchSpace,
    SimulationPlan,
    Stage,
    open_study,
    simulate,
)
from ml_postgres_optimization.workload import (
    LEVELS,
    LoadGenerator,
    LoadPlan,
    OperationKind,
    OperationMix,
    create_tables,
)

CONNECTIONS = 6
RATE = 200.0
READS = OperationMix({OperationKind.READ: 1})


@pytest.fixture(autouse=True)
def _quiet():
    optuna.logging.set_verbosity(optuna.logging.WARNING)


class Ground:
    """A server, under load of ours unless it is None, and everything that a trial on it needs."""

    def __init__(self, target, load, journal):
        settings = target.settings(load_catalogue().settings_needed)
        self.target, self.load, self.journal = target, load, journal
        self.catalogue = load_catalogue().confront(settings, target.capabilities.major, target.machine)
        self.initial = self.catalogue.configuration_of(settings, {CONCURRENCY: CONNECTIONS} if load else {})
        self.store = MemoryStore()
        clock = SystemClock()
        self.laboratory = Laboratory(
            Guard(
                target,
                catalogue=self.catalogue,
                machine=target.machine,
                journal=journal,
                capabilities=target.capabilities,
            ),
            Recorder(target, clock, samples=load.samples if load else no_samples, subscribers=[self.store.add]),
            clock,
            random.Random(1),
            load,
            {"run": "test"},
        )

    def in_force(self):
        settings = self.target.settings(self.catalogue.settings_needed)
        return self.catalogue.configuration_of(settings, {CONCURRENCY: self.load.plan.connections})


@contextmanager
def ground_on(dsn, folder, *, scale=0.01, mix=LEVELS["MEDIUM"].mix, **more):
    create_tables(dsn, scale)
    plan = LoadPlan(mix, rate_per_second=RATE, connections=CONNECTIONS, seed=1, processes=1, **more)
    with (
        PostgresTarget.open(resolve_connection(dsn, {})) as target,
        Journal(folder) as journal,
        LoadGenerator(dsn, plan) as load,
    ):
        yield Ground(target, load, journal)


@pytest.fixture
def ground(own_server, tmp_path):
    with ground_on(own_server.dsn, tmp_path) as made:
        yield made


def test_a_trial_measures_both_arms_under_the_settings_that_it_says(ground):
    before = ground.initial
    candidate = before.replaced({"work_mem": 8192, CONCURRENCY: 3})
    seen = []

    def look(_pairs, _interval):
        seen.append(ground.in_force())

    plan = TrialPlan(block_seconds=0.3, max_pairs=2, guards=NO_GUARDS)
    trial = ground.laboratory.hold(before, Proposal(candidate, "user", "to see"), plan, on_pair=look)
    assert trial.verdict.outcome is Outcome.UNDECIDED
    assert len(trial.verdict.pairs) == 2
    for configuration, pair in zip(seen, trial.verdict.pairs, strict=True):
        # what the second block of the pair ran on is still in force
        assert configuration == (before if pair.candidate_first else candidate)
    assert ground.in_force() == before
    arms = {window.labels["arm"]: window.configuration_id for window in ground.store.windows()}
    assert arms == {"baseline": before.id, "candidate": candidate.id}
    offered = sum(RATE * window.duration_seconds for window in ground.store.windows())
    assert 0.4 * offered < sum(window.operations_total for window in ground.store.windows()) < 2.5 * offered


@pytest.mark.parametrize(
    ("values", "design"),
    [pytest.param({"bgwriter_delay": 100}, "switchback", marks=pytest.mark.long), ({"jit": False}, "concurrent")],
)
def test_blocks_are_looked_into_whether_they_began_too_early_and_are_told_as_one(ground, values, design):
    candidate = ground.initial.replaced(values)
    plan = TrialPlan(block_seconds=4.0, client_settle_seconds=0.1, max_pairs=1, guards=NO_GUARDS)
    trial = ground.laboratory.hold(ground.initial, Proposal(candidate, "user", "to see"), plan)
    assert trial.design == design
    assert len(trial.verdict.pairs) == 1
    least = 2.0 if design == "switchback" else 0.1
    assert least <= trial.figures["settle_seconds"] <= 8.0
    windows = ground.store.windows()
    pairs = 1 + trial.figures.get("settle_pairs_left_out", 0)
    assert len(windows) == 1 + pairs * (2 if design == "switchback" else 1)
    assert all(4.0 <= window.duration_seconds < 5.0 for window in windows)
    assert all(window.operations_total > 0.5 * RATE * window.duration_seconds for window in windows)


@pytest.mark.parametrize(
    ("cost", "outcome"), [(1.1, Outcome.PROMOTED), pytest.param(6.0, Outcome.UNDECIDED, marks=pytest.mark.long)]
)
def test_what_sessions_can_set_is_tried_side_by_side_and_the_server_hears_only_of_what_stays(
    own_server, tmp_path, cost, outcome
):
    # dear enough that every read goes through all 40,000 accounts, unless the candidate makes it cheap
    dear = 1e6 if outcome is Outcome.PROMOTED else 4.0
    with psycopg.connect(own_server.dsn, autocommit=True) as connection:
        connection.execute(f"ALTER SYSTEM SET random_page_cost = {dear}")
        connection.execute("SELECT pg_reload_conf()")
    until_new_sessions_have(own_server.dsn, "random_page_cost", f"{dear:g}")
    with ground_on(own_server.dsn, tmp_path, scale=0.1, mix=READS) as ground:
        candidate = ground.initial.replaced({"random_page_cost": cost})
        during = []

        def look(_pairs, _interval):
            during.append(ground.in_force())

        plan = TrialPlan(block_seconds=0.5, client_settle_seconds=0.5, max_pairs=12, guards=NO_GUARDS)
        trial = ground.laboratory.hold(ground.initial, Proposal(candidate, "user", "to see"), plan, on_pair=look)
        assert trial.design is Design.CONCURRENT
        assert trial.verdict.outcome is outcome or outcome is not Outcome.PROMOTED
        assert set(during) == {ground.initial}
        kept = candidate if trial.verdict.outcome is Outcome.PROMOTED else ground.initial
        assert ground.in_force() == kept
        assert not ground.journal.state.unfinished
        windows = ground.store.windows()
        measured = len(trial.verdict.pairs) + trial.figures.get("settle_pairs_left_out", 0)
        assert len(windows) == measured + 1, "one for both arms together"
        assert {window.labels["design"] for window in windows} == {"concurrent"}
        assert not any("arm" in window.labels for window in windows)


def until_new_sessions_have(dsn, name, value):
    for _ in range(100):
        with psycopg.connect(dsn) as connection:
            if connection.execute(f"SHOW {name}").fetchone()[0] == value:
                return
        time.sleep(0.05)
    raise AssertionError(f"{name} never became {value}")


def test_what_others_share_or_a_single_session_is_tried_in_turn(ground):
    def design(**values):
        return ground.laboratory.design_of(Change(ground.initial, ground.initial.replaced(values)))

    assert design(work_mem=8192) is Design.CONCURRENT
    assert design(work_mem=8192, jit=False) is Design.CONCURRENT
    assert design(bgwriter_delay=100) is Design.SWITCHBACK
    assert design(work_mem=8192, bgwriter_delay=100) is Design.SWITCHBACK
    assert design(wal_compression="pglz") is Design.SWITCHBACK
    assert design(**{CONCURRENCY: 3}) is Design.SWITCHBACK
    ground.load.set_connections(1)
    assert design(work_mem=8192) is Design.SWITCHBACK


def test_the_controller_does_not_tune_an_idle_server_on_what_it_asks_itself(own_server, tmp_path, binaries):
    if not binaries.has_library("pg_stat_statements"):
        pytest.skip("these binaries have no contrib modules")
    with psycopg.connect(own_server.dsn, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION pg_stat_statements")
    events = []
    with PostgresTarget.open(resolve_connection(own_server.dsn, {})) as target, Journal(tmp_path) as journal:
        idle = Ground(target, None, journal)
        study = open_study(idle.laboratory, idle.initial, folder=None, workload="own", seed=1)
        controller = Controller(idle.laboratory, study, TrialPlan(block_seconds=1.5), subscribers=[events.append])
        controller.run(idle.initial, [], Budget(30))
    assert [event.stage for event in events] == [Stage.WATCHED, Stage.QUIET]
    assert events[-1].message == "nothing runs on this server that could be compared"


def test_the_controller_keeps_nothing_of_a_knob_that_changes_nothing(ground):
    events = []
    plan = TrialPlan(
        block_seconds=0.2,
        client_settle_seconds=0.1,
        max_pairs=7,
        guards=NO_GUARDS,
        thresholds=Thresholds(min_pairs=1),
    )
    study = open_study(ground.laboratory, ground.initial, folder=None, workload="test", seed=1)
    drafts = [
        Draft.of({"fsync": False}, "user", "a dare"),
        Draft.of({CONCURRENCY: 5}, "user", "about the same"),
    ]
    budget = Budget(30, patience=0, prove=False)
    ledger = Controller(ground.laboratory, study, plan, subscribers=[events.append]).run(
        ground.initial, drafts, budget
    )
    assert [event.stage for event in events if event.stage is not Stage.COMPARED][:3] == [
        Stage.WATCHED,
        Stage.PROPOSED,
        Stage.REFUSED,
    ]
    (trial,) = ledger.trials
    assert trial.verdict.pairs
    assert ground.in_force() == ledger.incumbent
    assert not ground.journal.state.unfinished


def test_a_simulation_varies_what_it_says_and_puts_everything_back(ground):
    seen = {}
    plan = SimulationPlan(
        seconds=9,
        capacity_per_second=RATE,
        seed=1,
        window_seconds=0.3,
        pause_seconds=0.2,
        scenes=2,
        windows_per_scene=1,
    )
    space = SearchSpace.of(ground.catalogue)

    def on_window(configuration, window):
        seen[window.configuration_id] = configuration
        in_force = ground.in_force()
        assert in_force == configuration

    made = simulate(ground.laboratory, ground.load, space, ground.initial, plan, on_window=on_window)
    windows = ground.store.windows()
    assert made == len(windows) >= 4
    assert {window.labels["phase"] for window in windows} == {"simulate"}
    assert {window.labels["level"] for window in windows} <= set(LEVELS)
    assert len({window.labels["level"] for window in windows}) > 1
    settings = [{**configuration, CONCURRENCY: 0} for configuration in seen.values()]
    assert any(one != settings[0] for one in settings)
    assert len({configuration[CONCURRENCY] for configuration in seen.values()}) > 1
    assert ground.in_force() == ground.initial
    assert not ground.journal.state.unfinished
