"""The continuous controller on the simulated target and a clock of its own: quiet, woken, warned, stopped."""

import itertools
import math

import pytest
from test_controller import Bench

from ml_postgres_optimization.knobs.configuration import CONCURRENCY
from ml_postgres_optimization.models.observation import Prediction
from ml_postgres_optimization.target.simulated import target as simulated
from ml_postgres_optimization.trials import Measure, TrialPlan
from ml_postgres_optimization.tuning import Chronicle, ContinuousController, Draft, Pace, Stage, open_study
from ml_postgres_optimization.tuning.controller import Controller
from ml_postgres_optimization.tuning.watching import Patience
from ml_postgres_optimization.tuning.watching.era import Era

HOUR = 3600.0
PACE = Pace(campaign_seconds=600.0, patience=1, rest_seconds=300.0)
EVENTS = {Stage.WOKEN, Stage.FORECAST, Stage.ADVISED}


class Course:
    """Noise whose level follows a course of time: what the server is like, whatever is in force."""

    def __init__(self, log_level, sigma=0.03):
        self.log_level, self.sigma, self.seconds = log_level, sigma, 0.0

    def after(self, level, seconds, random):
        self.seconds += seconds
        return self.log_level(self.seconds) + float(random.normal(0.0, self.sigma))


class Watch:
    """A continuous controller on a simulated server."""

    def __init__(self, folder, *, pace=PACE, noise=None, seed=1, connections=40, drafts=None, **more):
        self.bench = Bench(folder, seed=seed, noise=noise, connections=connections)
        self.chronicle = Chronicle(self.bench.initial)
        self.events = self.bench.events
        self.opened = []
        self.at = {}
        subscribers = [self.chronicle, self.note]

        def controller(load, incumbent):
            self.opened.append(load)
            study = open_study(self.bench.laboratory, incumbent, folder=None, workload=load or "first", seed=seed)
            return Controller(self.bench.laboratory, study, self.bench.plan, subscribers=subscribers)

        self.controller = ContinuousController(
            self.bench.laboratory,
            controller,
            drafts or (lambda incumbent: self.bench.rules()),
            more.pop("plan", self.bench.plan),
            self.chronicle,
            pace=pace,
            subscribers=subscribers,
            **more,
        )
        self.bench.on_window_do = self.on_window

    def note(self, progress):
        self.events.append(progress)

    def on_window(self, window):
        for seconds in sorted(self.at):
            if self.bench.clock.monotonic_seconds() >= seconds:
                self.at.pop(seconds)()

    def run(self, hours):
        return self.controller.run(hours * HOUR)

    def told(self, *stages):
        return [event for event in self.events if event.stage in stages]

    def seconds_of(self, event):
        return (event.at - self.bench.clock._start).total_seconds()


@pytest.fixture
def watch(tmp_path):
    return Watch(tmp_path)


def set_mix(monkeypatch, write_ratio):
    monkeypatch.setattr(simulated, "WRITE_RATIO", write_ratio)


def test_after_the_first_campaign_it_is_quiet_and_holds_no_trial(watch):
    whole = watch.run(3)
    assert watch.chronicle.ledgers[0].promoted
    assert watch.opened == [""]
    assert not watch.told(*EVENTS)
    quiet = watch.told(Stage.QUIET)[-1]
    assert "usual is 100/s" in quiet.message
    later = [window for window in watch.bench.store.windows() if window.started_at > quiet.at]
    assert len(later) > 300
    assert {window.labels["phase"] for window in later} == {"watch"}
    assert {window.labels["state"] for window in later} == {"quiet"}
    assert watch.bench.in_force() == whole.incumbent
    assert all(earlier.ended_at == then.started_at for earlier, then in itertools.pairwise(later))


def test_a_change_of_the_mix_wakes_it_within_the_windows_that_it_promises(watch, monkeypatch):
    watch.at[0.5 * HOUR] = lambda: set_mix(monkeypatch, 0.7)
    watch.run(1)
    woken = watch.told(Stage.WOKEN)
    assert len(woken) == 1
    assert "of the operations are others than before" in woken[0].message
    needed = PACE.changes.load_windows * PACE.window_seconds
    assert needed - 1 <= watch.seconds_of(woken[0]) - 0.5 * HOUR <= needed + PACE.window_seconds
    assert len(watch.opened) == 2


def test_a_change_of_the_rate_wakes_it(watch):
    watch.at[0.5 * HOUR] = lambda: setattr(watch.bench.target, "_rate_per_second", 250.0)
    watch.run(0.7)
    assert [event.message.partition(",")[0] for event in watch.told(Stage.WOKEN)] == [
        "250 operations/s come instead of 100"
    ]


def test_a_load_that_is_known_is_not_searched_again(watch):
    """Day, night and day again: the second day needs no campaign."""
    for hours, rate in ((0.5, 300.0), (1.0, 100.0), (1.2, 300.0)):
        watch.at[hours * HOUR] = lambda rate=rate: setattr(watch.bench.target, "_rate_per_second", rate)
    watch.run(1.4)
    assert len([event for event in watch.told(Stage.WOKEN) if "a new campaign" in event.message]) == 1
    assert len([event for event in watch.told(Stage.WOKEN) if "a load that is known is back" in event.message]) == 2


def test_a_change_during_the_campaign_is_noticed_after_it(tmp_path):
    watch = Watch(tmp_path, pace=Pace(campaign_seconds=600.0, patience=1, rest_seconds=60.0))
    watch.at[200.0] = lambda: setattr(watch.bench.target, "_rate_per_second", 300.0)
    watch.run(0.6)
    assert "the load became another one during the campaign" in watch.told(Stage.WOKEN)[0].message
    assert len(watch.opened) == 2


def test_it_rests_after_a_campaign_and_says_so(tmp_path):
    watch = Watch(tmp_path, pace=Pace(campaign_seconds=600.0, patience=1, rest_seconds=1800.0))
    watch.at[1000.0] = lambda: setattr(watch.bench.target, "_rate_per_second", 300.0)
    watch.run(1)
    delayed = [event for event in watch.told(Stage.QUIET) if "the last campaign was a moment ago" in event.message]
    assert len(delayed) == 1
    (woken,) = watch.told(Stage.WOKEN)
    campaign_ended = max(trial.ended_at for trial in watch.chronicle.ledgers[0].trials)
    assert (woken.at - campaign_ended).total_seconds() >= 1800


def rising(seconds):
    """Nothing for half an hour, then half as much again every ten minutes."""
    return max(0.0, seconds - HOUR / 2) / 600.0 * math.log(1.5)


def test_a_rising_trend_starts_a_trial_before_the_limit_is_broken(tmp_path):
    watch = Watch(tmp_path, noise=Course(rising), connections=8, drafts=lambda _: [], limit_seconds=0.0026)
    watch.run(0.8)
    warned = watch.told(Stage.FORECAST)[0]
    assert "the limit of 2.6 ms will be exceeded" in warned.message
    began = next(event for event in watch.told(Stage.PROPOSED) if event.at >= warned.at)
    assert began.at == warned.at
    seen = [window for window in watch.bench.store.windows() if window.labels["phase"] == "watch"]
    windows = [window for window in seen if window.ended_at <= warned.at]
    assert max(window.response.mean_seconds for window in windows) < 0.0026


def test_without_a_limit_a_rising_trend_alone_starts_no_forecast_trial(tmp_path):
    watch = Watch(tmp_path, noise=Course(rising), connections=8)
    watch.run(0.65)
    assert not watch.told(Stage.FORECAST)


def test_a_forecast_of_the_forest_counts_as_much(tmp_path):
    def forecast(window):
        late = (window.ended_at - watch.bench.clock._start).total_seconds() > HOUR / 2
        return Prediction(0.05, 0.04, 0.06) if late else Prediction(0.001, 0.0009, 0.0011)

    watch = Watch(tmp_path, limit_seconds=0.01, forecast=forecast, connections=8)
    watch.run(0.6)
    warned = watch.told(Stage.FORECAST)
    assert "50.00 ms in 10 s by the latency forest" in warned[0].message
    assert HOUR / 2 <= watch.seconds_of(warned[0]) <= HOUR / 2 + 4 * PACE.window_seconds


def test_a_forecast_of_the_mean_says_nothing_of_a_percentile(tmp_path):
    plan = TrialPlan(measure=Measure.P99)
    watch = Watch(tmp_path, plan=plan, limit_seconds=0.05, forecast=lambda _: Prediction(9.0, 8.0, 10.0))
    watch.run(0.4)
    assert not watch.told(Stage.FORECAST)


def test_a_limit_that_nothing_can_keep_ends_in_advice_and_few_trials(tmp_path):
    watch = Watch(tmp_path, limit_seconds=0.0001, drafts=lambda _: [], advice="Add memory.", connections=8)
    watch.run(1.2)
    (advised,) = watch.told(Stage.ADVISED)
    assert "the limit of 0.1 ms is exceeded" in advised.message
    assert advised.message.endswith("no proposal is left. Add memory.")
    after = [event for event in watch.told(Stage.PROPOSED) if event.at > advised.at]
    assert not after
    assert len(watch.told(Stage.FORECAST)) >= PACE.attempts


def test_what_somebody_else_puts_in_force_is_taken_over_and_gone_on_from(tmp_path):
    watch = Watch(tmp_path, connections=8)

    def by_hand():
        watch.bench.target.write("work_mem", 5000)
        watch.bench.target.reload()

    watch.at[HOUR] = by_hand
    watch.at[1.5 * HOUR] = lambda: watch.bench.target.__setattr__("_rate_per_second", 20.0)
    whole = watch.run(3)
    (overtaken,) = watch.told(Stage.OVERTAKEN)
    assert overtaken.message == "somebody else has changed work_mem: what is in force now counts"
    after = [event for event in watch.events if event.at > overtaken.at]
    assert Stage.REFUSED not in [event.stage for event in after]
    first = next(event.trial for event in after if event.trial)
    assert first.baseline["work_mem"] == 5000
    assert watch.bench.store.windows()[-1].configuration_id == watch.bench.in_force().id
    assert whole.incumbent == watch.bench.in_force()


def test_drafts_that_are_refused_are_no_proposals_for_ever(tmp_path):
    refused = Draft.of({"work_mem": 1 << 40}, "rules", "too much")
    watch = Watch(tmp_path, limit_seconds=0.0001, drafts=lambda _: [refused], connections=8, advice="Add memory.")
    watch.run(4)
    assert len(watch.told(Stage.ADVISED)) == 1


def test_of_several_drafts_those_after_the_one_that_was_tried_get_their_turn(tmp_path):
    values = (1024, 1 << 40, 2048, 3072)
    drafts = [Draft.of({"work_mem": value}, "rules", "slow") for value in values]
    watch = Watch(tmp_path, limit_seconds=0.0001, drafts=lambda _: drafts, connections=8)
    watch.controller._campaign = lambda change=None: None
    watch.controller._era = Era("", watch.controller._controllers("", watch.bench.initial), ())
    watch.run(2)
    tried = [
        trial.proposal.configuration["work_mem"] for ledger in watch.chronicle.ledgers for trial in ledger.trials
    ]
    assert tried[:3] == [1024, 2048, 3072]


def test_a_campaign_that_somebody_else_cuts_short_is_begun_anew(tmp_path):
    watch = Watch(tmp_path, connections=8)

    def by_hand():
        watch.bench.target.write("work_mem", 5000)
        watch.bench.target.reload()

    watch.at[60.0] = by_hand
    whole = watch.run(2)
    assert len(watch.told(Stage.OVERTAKEN)) == 2, "once by the campaign, once by the run"
    assert watch.opened[:2] == ["", watch.opened[1]]
    assert len(watch.chronicle.ledgers) >= 1
    assert whole.incumbent == watch.bench.in_force() == watch.chronicle.incumbent


def test_trials_outside_of_a_campaign_take_half_of_the_time_at_most(tmp_path):
    watch = Watch(tmp_path, limit_seconds=0.0001, drafts=lambda _: [], connections=8)
    watch.run(1)
    trials = [ledger.trials[0] for ledger in watch.chronicle.ledgers[1:]]
    for earlier, later in itertools.pairwise(trials):
        took = (earlier.ended_at - earlier.started_at).total_seconds()
        assert (later.started_at - earlier.ended_at).total_seconds() >= took


def test_what_gets_slower_after_a_promotion_has_the_configuration_before_tried_again(tmp_path):
    """The optimum moves: what was promoted is slower now than what it replaced."""
    watch = Watch(tmp_path, pace=Pace(campaign_seconds=600.0, patience=0), connections=16)
    watch.bench.rules = lambda: [Draft.of({CONCURRENCY: 8}, "rules", "fewer")]
    original = simulated.latency_seconds
    patch = pytest.MonkeyPatch()

    def worse(configuration, concurrency):
        return original(configuration, concurrency) * (2.5 if concurrency == 8 else 1.0)

    watch.at[HOUR / 2] = lambda: patch.setattr(simulated, "latency_seconds", worse)
    try:
        watch.run(0.8)
    finally:
        patch.undo()
    assert watch.chronicle.ledgers[0].incumbent[CONCURRENCY] == 8
    woken = watch.told(Stage.WOKEN)[0]
    assert "the same load takes" in woken.message
    assert woken.message.endswith("the configuration before is tried once more")
    proposal = next(event.proposal for event in watch.told(Stage.PROPOSED) if event.at >= woken.at)
    assert (proposal.origin, proposal.configuration) == ("re-proof", watch.bench.initial)
    assert watch.chronicle.ledgers[1].promoted
    assert watch.bench.in_force()[CONCURRENCY] == 16


def test_it_waits_for_load_on_an_idle_server(watch):
    watch.bench.target._rate_per_second = 0.0
    watch.at[HOUR] = lambda: setattr(watch.bench.target, "_rate_per_second", 100.0)
    watch.run(1.3)
    assert len([event for event in watch.told(Stage.QUIET) if "waiting for load" in event.message]) == 1
    assert watch.seconds_of(watch.told(Stage.PROPOSED)[0]) > HOUR


def test_load_that_pauses_and_comes_back_wakes_nobody(watch):
    watch.at[0.5 * HOUR] = lambda: setattr(watch.bench.target, "_rate_per_second", 0.0)
    watch.at[0.8 * HOUR] = lambda: setattr(watch.bench.target, "_rate_per_second", 100.0)
    watch.run(1.1)
    assert not watch.told(Stage.WOKEN)


@pytest.mark.parametrize("hours", [0.05, 0.5], ids=["in a campaign", "while quiet"])
def test_ctrl_c_leaves_the_incumbent_in_force(watch, hours):
    def stop():
        raise KeyboardInterrupt

    watch.at[hours * HOUR] = stop
    with pytest.raises(KeyboardInterrupt):
        watch.run(1)
    assert watch.bench.in_force() == watch.chronicle.incumbent == watch.chronicle.whole.incumbent
    assert not watch.bench.journal.state.unfinished


def test_one_trial_at_a_time_and_each_is_in_the_chronicle(watch, monkeypatch):
    watch.at[0.5 * HOUR] = lambda: set_mix(monkeypatch, 0.7)
    watch.run(1)
    trials = watch.chronicle.whole.trials
    proofs = [ledger.proof for ledger in watch.chronicle.ledgers if ledger.proof]
    spans = sorted((trial.started_at, trial.ended_at) for trial in (*trials, *proofs))
    assert all(earlier[1] <= later[0] for earlier, later in itertools.pairwise(spans))
    decided = [event.trial for event in watch.told(Stage.DECIDED)]
    assert list(trials) == decided
    assert len(watch.chronicle.ledgers) == 2


def test_the_duration_bounds_it(watch):
    watch.run(0.25)
    assert watch.bench.clock.monotonic_seconds() <= 0.25 * HOUR + 20


def test_patience_is_longer_for_what_lasts_by_itself():
    assert Patience().load_windows < Patience().response_windows
