"""The continuous run on a real server: its command line, its end, and a trial that a limit asks for."""

import math
import os
import signal

import pytest
from command_line import CommandLine, clean_environment, written_settings
from test_tuning import ground_on

from ml_postgres_optimization.interfaces.workbench import load
from ml_postgres_optimization.knobs.configuration import CONCURRENCY
from ml_postgres_optimization.trials import NO_GUARDS, Thresholds, TrialPlan
from ml_postgres_optimization.tuning import (
    Chronicle,
    ContinuousController,
    Controller,
    Draft,
    Pace,
    Stage,
    open_study,
)

SHORT = ("--simulate", "--continuous", "--scale", "0.02", "--level", "BASIC")


# a campaign takes half a minute: once in CI, on the version that is installed
pytestmark = pytest.mark.slow


@pytest.fixture
def here(monkeypatch, capsys, tmp_path, database):
    clean_environment(monkeypatch, tmp_path / "home")
    monkeypatch.setenv("GENESIS_WINDOW_SECONDS", "0.5")
    monkeypatch.setattr(load, "CAPACITY_SECONDS", 0.5)
    command_line = CommandLine(capsys, tmp_path / "home", database)
    command_line("setup").done()
    return command_line


def test_a_limit_that_nobody_would_act_on_is_refused(here):
    here("optimize", "--objective-limit-milliseconds", "5").is_refused(2, "5 ms", "--continuous")


def test_trials_are_counted_for_a_run_that_ends(here):
    here("optimize", "--continuous", "--trials", "3").is_refused(2, "--trials", "--duration")


@pytest.mark.parametrize("value", ["0", "-1", "fast"])
def test_a_limit_that_makes_no_sense_is_refused(here, value):
    words = ("optimize", "--continuous", "--objective-limit-milliseconds", value)
    here(*words).is_refused(2, "--objective-limit-milliseconds", value)


@pytest.mark.long
def test_a_run_with_a_duration_learns_what_is_usual_becomes_quiet_and_ends(here):
    ended = here("optimize", *SHORT, "--duration", "0.008").done()
    assert "quiet: usual is" in ended.out
    assert "What was measured" in ended.out
    shown = here("status", "--json").done().document["continuous_run"]
    assert shown["state"] == "quiet"
    assert "continuous run, which was quiet at" in here("status").done().out


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.long), signal.SIGTERM])
def test_a_run_without_an_end_ends_well_when_it_is_stopped(here, database, monkeypatch, number):
    def stop(_controller, _era, _reading):
        os.kill(os.getpid(), number)

    monkeypatch.setattr(ContinuousController, "_learn", stop)
    # so that the campaign has no time for a trial
    monkeypatch.setattr("ml_postgres_optimization.interfaces.commands.online.optimization._CAMPAIGN_SECONDS", 5.0)
    before = written_settings(database)
    ended = here("optimize", *SHORT).done()
    assert "Stopped: what is proven stays in force." in ended.out
    assert "What was measured" in ended.out
    assert written_settings(database) == before
    assert here("status", "--json").document["unfinished_trials"] == []


def test_a_run_with_a_duration_that_is_stopped_was_interrupted(here, monkeypatch):
    monkeypatch.setattr("ml_postgres_optimization.interfaces.commands.online.optimization._CAMPAIGN_SECONDS", 5.0)
    monkeypatch.setattr(ContinuousController, "_learn", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    here("optimize", *SHORT, "--duration", "0.008").is_refused(130, "Interrupted")


def test_a_limit_that_is_exceeded_has_one_trial_held_at_once(own_server, tmp_path):
    events = []
    with ground_on(own_server.dsn, tmp_path) as ground:
        plan = TrialPlan(
            block_seconds=0.2,
            client_settle_seconds=0.1,
            max_pairs=3,
            guards=NO_GUARDS,
            thresholds=Thresholds(min_pairs=1),
        )
        chronicle = Chronicle(ground.initial)

        def controller(name, incumbent):
            study = open_study(ground.laboratory, incumbent, folder=None, workload=name or "first", seed=1)
            return Controller(ground.laboratory, study, plan, subscribers=[chronicle, events.append])

        continuous = ContinuousController(
            ground.laboratory,
            controller,
            lambda _: [Draft.of({CONCURRENCY: 5}, "rules", "about the same")],
            plan,
            chronicle,
            # too short for a trial of its own
            pace=Pace(window_seconds=0.3, learning_windows=4, campaign_seconds=0.5, attempts=0),
            limit_seconds=1e-6,
            subscribers=[events.append],
        )
        whole = continuous.run(25)
        assert ground.in_force() == whole.incumbent == chronicle.incumbent
        assert not ground.journal.state.unfinished
    stages = [event.stage for event in events]
    assert stages.index(Stage.FORECAST) < stages.index(Stage.PROPOSED)
    assert "the limit of 0.001 ms is exceeded" in events[stages.index(Stage.FORECAST)].message
    assert whole.trials[0].proposal.configuration[CONCURRENCY] == 5
    assert whole.trials[0].verdict.pairs
    assert all(math.isfinite(event.remaining_seconds) for event in events)
