"""The controller waits for its owner: for a word, for a window of time, for the end of a pause."""

from datetime import UTC, timedelta

import pytest
from test_continuous import HOUR, Watch
from test_controller import Bench

from ml_postgres_optimization.errors import NotNow
from ml_postgres_optimization.knobs.configuration import CONCURRENCY, Change
from ml_postgres_optimization.safety.consent import Answer, Approvals, ChangeWindow, ChangeWindows, Consent, PauseFile
from ml_postgres_optimization.safety.guarded_change import GuardedChange
from ml_postgres_optimization.trials import Outcome
from ml_postgres_optimization.tuning import Budget, Draft, Stage


@pytest.fixture
def bench(tmp_path):
    made = Bench(tmp_path)
    made.pause = PauseFile(tmp_path)
    made.approvals = Approvals(tmp_path, made.clock)
    yield made
    made.journal.__exit__(None, None, None)


def consent_of(bench, *, asks=False, windows=None):
    consent = Consent(bench.clock, pause=bench.pause, windows=windows, approvals=bench.approvals if asks else None)
    bench.laboratory.guard.consent = consent
    return consent


def opening_after(bench, seconds, length_seconds=3600):
    """Return a daily window that opens in so many seconds."""
    begins = bench.clock.now().astimezone(UTC) + timedelta(seconds=seconds)
    minute = begins.hour * 60 + begins.minute
    return ChangeWindows((ChangeWindow(frozenset(range(7)), minute, (minute + length_seconds // 60) % 1440, UTC),))


def told(bench, stage):
    return [event.message for event in bench.events if event.stage is stage]


def test_every_proposal_waits_for_a_word_and_the_proof_needs_none(bench):
    consent_of(bench, asks=True)

    answered = []

    def approve(_window):
        for asked in bench.approvals.all(Answer.WAITING):
            assert bench.journal.state.unfinished == ()
            answered.append(asked.configuration)
            bench.approvals.answer(asked.id, Answer.APPROVED, "maria")

    bench.on_window_do = approve
    ledger = bench.controller().run(bench.initial, bench.rules(), Budget(2000, patience=1))
    assert ledger.promoted
    assert ledger.proof is not None
    assert [trial.proposal.configuration for trial in ledger.trials] == answered[: len(ledger.trials)]
    assert len(told(bench, Stage.WAITING)) == len(answered)
    assert not bench.approvals.all(Answer.WAITING)


def test_without_a_word_nothing_is_written_and_the_run_ends_in_time(bench):
    consent_of(bench, asks=True)
    ledger = bench.controller().run(bench.initial, bench.rules(), Budget(600, patience=2))
    assert ledger.trials == ()
    assert bench.in_force() == bench.initial
    assert not list(bench.journal.unmirrored)
    assert bench.clock.monotonic_seconds() <= 600
    assert "waits for a word" in told(bench, Stage.WAITING)[0]
    assert "before a trial may begin" in bench.events[-1].message
    (asked,) = bench.approvals.all(Answer.WAITING)
    bench.approvals.answer(asked.id, Answer.APPROVED, "maria")
    again = bench.controller().run(bench.initial, bench.rules(), Budget(200, patience=0))
    assert again.trials[0].proposal.configuration == asked.configuration


def test_what_is_declined_is_passed_over(bench):
    consent_of(bench, asks=True)
    draft = Draft.of({CONCURRENCY: 5}, "rules", "fewer")
    wanted = bench.initial.replaced({CONCURRENCY: 5})
    bench.approvals.ask(bench.initial, wanted, "fewer")
    bench.approvals.answer(wanted.id, Answer.DECLINED, "maria")
    ledger = bench.controller().run(bench.initial, [draft], Budget(600, patience=0))
    assert ledger.trials == ()
    assert any("was declined" in message for message in told(bench, Stage.REFUSED))


def test_a_pause_in_a_trial_puts_back_within_a_second_and_the_proposal_is_tried_anew(bench):
    consent_of(bench)
    paused_at, seen = [], []

    def pause(_window):
        now = bench.clock.monotonic_seconds()
        if bench.journal.state.unfinished and not paused_at and now > 40:
            bench.pause.pause(bench.clock, "incident")
            paused_at.append(now)
        elif paused_at and not bench.journal.state.unfinished:
            seen.append((now, bench.in_force()))
            if now > paused_at[0] + 60:
                bench.pause.resume()

    bench.on_window_do = pause
    ledger = bench.controller().run(bench.initial, bench.rules(), Budget(1200, patience=0))
    assert seen[0][0] <= paused_at[0] + 2 + 5  # the first look into the load after it
    assert seen[0][1] == bench.initial
    assert "paused" in " ".join(told(bench, Stage.WAITING))
    (first, *_) = ledger.trials
    assert first.proposal.configuration[CONCURRENCY] == 5
    assert first.verdict.outcome is Outcome.PROMOTED
    assert (first.started_at - bench.clock._start).total_seconds() > paused_at[0] + 60


def test_a_pause_that_lasts_ends_the_run_with_nothing_tried(bench):
    consent_of(bench)

    def pause(_window):
        if bench.journal.state.unfinished:
            bench.pause.pause(bench.clock)

    bench.on_window_do = pause
    controller = bench.controller()
    ledger = controller.run(bench.initial, bench.rules(), Budget(300, patience=1))
    assert ledger.trials == ()
    assert controller.was_held
    assert bench.in_force() == bench.initial
    assert not bench.journal.state.unfinished


def test_a_word_that_is_taken_back_during_the_trial_ends_it(bench):
    consent_of(bench, asks=True)
    draft = Draft.of({CONCURRENCY: 5}, "rules", "fewer")
    wanted = bench.initial.replaced({CONCURRENCY: 5})
    bench.approvals.ask(bench.initial, wanted, "fewer")
    bench.approvals.answer(wanted.id, Answer.APPROVED, "maria")

    def decline(_window):
        if bench.journal.state.unfinished and bench.clock.monotonic_seconds() > 40:
            bench.approvals.answer(wanted.id, Answer.DECLINED, "maria")

    bench.on_window_do = decline
    ledger = bench.controller().run(bench.initial, [draft], Budget(600, patience=0))
    assert ledger.trials == ()
    assert bench.in_force() == bench.initial
    assert any("was declined" in message for message in told(bench, Stage.REFUSED))


def test_a_halt_between_the_verdict_and_its_confirmation_counts(bench, monkeypatch):
    consent_of(bench)
    confirm, halted = GuardedChange.confirm, []

    def confirmed(guarded):
        if not halted:
            halted.append(bench.in_force())
            bench.pause.pause(bench.clock)
        confirm(guarded)

    monkeypatch.setattr(GuardedChange, "confirm", confirmed)
    ledger = bench.controller().run(bench.initial, bench.rules(), Budget(500, patience=0))
    assert halted[0] != bench.initial
    assert not ledger.promoted
    assert bench.in_force() == bench.initial
    assert not bench.journal.state.confirmed


def test_the_proof_waits_as_well(bench):
    consent_of(bench)
    promoted = []

    def pause(_window):
        now = bench.clock.monotonic_seconds()
        if bench.journal.state.confirmed and not promoted and bench.events[-1].stage is Stage.PROVING:
            promoted.append(now)
            bench.pause.pause(bench.clock)
        elif promoted and now > promoted[0] + 30:
            bench.pause.resume()

    bench.on_window_do = pause
    ledger = bench.controller().run(bench.initial, bench.rules(), Budget(3000, patience=1))
    assert promoted
    assert ledger.proof is not None
    assert ledger.proven.high < 1


def test_what_no_window_is_long_enough_for_is_refused_rather_than_waited_for(bench):
    consent_of(bench, windows=opening_after(bench, 60, length_seconds=60))
    ledger = bench.controller().run(bench.initial, bench.rules(), Budget(600, patience=0))
    assert ledger.trials == ()
    assert any("no window for changes" in message for message in told(bench, Stage.REFUSED))


def test_after_a_pause_it_goes_on(bench):
    consent_of(bench)
    bench.pause.pause(bench.clock)

    def resume(_window):
        if bench.clock.monotonic_seconds() > 100:
            bench.pause.resume()

    bench.on_window_do = resume
    ledger = bench.controller().run(bench.initial, bench.rules(), Budget(900, patience=0))
    assert ledger.promoted
    assert (ledger.trials[0].started_at - bench.clock._start).total_seconds() > 100


def test_trials_lie_within_the_window(bench):
    windows = opening_after(bench, 600, length_seconds=900)
    consent_of(bench, windows=windows)
    ledger = bench.controller().run(bench.initial, bench.rules(), Budget(4000, patience=3))
    assert ledger.trials
    for trial in ledger.trials:
        assert windows.is_open(trial.started_at)
        assert windows.is_open(trial.ended_at)
    assert bench.clock.monotonic_seconds() < 4000


def test_a_window_that_opens_after_the_end_is_not_waited_for(bench):
    consent_of(bench, windows=opening_after(bench, 7200))
    ledger = bench.controller().run(bench.initial, bench.rules(), Budget(600))
    assert ledger.trials == ()
    assert bench.clock.monotonic_seconds() < 60


def test_the_guard_itself_refuses_what_the_owner_does_not_allow(bench):
    consent_of(bench)
    bench.pause.pause(bench.clock)
    change = Change(bench.initial, bench.initial.replaced({"random_page_cost": 1.1}))
    with pytest.raises(NotNow), bench.laboratory.guard.trial(change, "trial"):
        pytest.fail("it was entered")
    assert not list(bench.journal.unmirrored)


def test_a_continuous_run_acts_only_in_its_windows_and_watches_always(tmp_path):
    watch = Watch(tmp_path)
    windows = opening_after(watch.bench, 1200, length_seconds=1200)
    watch.bench.pause = PauseFile(tmp_path)
    consent_of(watch.bench, windows=windows)
    watch.run(1)
    trials = [trial for ledger in watch.chronicle.ledgers for trial in ledger.trials]
    assert trials
    assert all(windows.is_open(trial.started_at) and windows.is_open(trial.ended_at) for trial in trials)
    assert len([w for w in watch.bench.store.windows() if not windows.is_open(w.ended_at)]) > 150
    assert [event.message for event in watch.told(Stage.WAITING)][-1] != "changes are allowed again"


def answered_at(watch, hours, answer):
    """Have whatever waits answered at that time, and everything from then on."""

    def say():
        for asked in watch.bench.approvals.all(Answer.WAITING):
            watch.bench.approvals.answer(asked.id, answer, "maria")
        watch.at[watch.bench.clock.monotonic_seconds() + 5] = say

    watch.at[hours * HOUR] = say


@pytest.fixture
def asking(tmp_path):
    watch = Watch(tmp_path)
    watch.bench.pause, watch.bench.approvals = PauseFile(tmp_path), Approvals(tmp_path, watch.bench.clock)
    consent_of(watch.bench, asks=True)
    return watch


def test_a_word_that_comes_after_the_time_of_a_campaign_is_followed(asking):
    answered_at(asking, 0.4, Answer.APPROVED)
    asking.run(0.8)
    assert asking.chronicle.whole.promoted
    first = asking.chronicle.whole.trials[0]
    assert (first.started_at - asking.bench.clock._start).total_seconds() > 0.4 * HOUR


def test_what_was_approved_when_all_was_quiet_is_tried(asking):
    answered_at(asking, 0, Answer.APPROVED)
    wanted = []

    def approve():
        incumbent = asking.chronicle.incumbent
        wanted.append(incumbent.replaced({"jit": not incumbent["jit"]}))
        asking.bench.approvals.ask(incumbent, wanted[0], "by hand")

    def approved(incumbent):
        found = asking.bench.approvals.all(Answer.APPROVED)
        return [Draft.of(asked.after, "approved", asked.reason) for asked in found if asked.configuration in wanted]

    asking.controller._approved = approved
    asking.at[0.7 * HOUR] = approve
    asking.run(1)
    assert [event.message for event in asking.told(Stage.WOKEN)] == ["a proposal was approved: it is tried"]
    assert [
        trial.proposal.configuration for trial in asking.chronicle.whole.trials if trial.proposal.origin == "approved"
    ] == wanted


def test_a_campaign_that_its_owner_cut_short_is_gone_on_with(tmp_path):
    watch = Watch(tmp_path)
    watch.bench.pause = PauseFile(tmp_path)
    consent_of(watch.bench)

    def pause():
        watch.bench.pause.pause(watch.bench.clock)

    watch.at[60] = pause
    watch.at[0.5 * HOUR] = watch.bench.pause.resume
    watch.run(1)
    assert watch.chronicle.whole.promoted
    started = watch.chronicle.whole.promoted[0].started_at
    assert (started - watch.bench.clock._start).total_seconds() > 0.5 * HOUR
    assert watch.opened == ["", ""]


def test_what_changed_while_it_was_held_and_is_usual_again_is_no_reason(tmp_path):
    watch = Watch(tmp_path)
    watch.bench.pause = PauseFile(tmp_path)
    consent_of(watch.bench)
    target = watch.bench.target
    for hours, act in (
        (0.50, lambda: watch.bench.pause.pause(watch.bench.clock)),
        (0.55, lambda: setattr(target, "_rate_per_second", 300.0)),
        (0.65, lambda: setattr(target, "_rate_per_second", 100.0)),
        (0.80, watch.bench.pause.resume),
    ):
        watch.at[hours * HOUR] = act
    watch.run(1)
    assert not watch.told(Stage.WOKEN)
