"""Prevention on the simulated target: quiet, one at a time, held out by lot, and put back whatever happens."""

import itertools
import math
import random
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from statistics import median

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_windows import STOCK, history
from test_continuous import Watch
from test_controller import Bench

from ml_postgres_optimization.errors import ChangeRefused, JournalError, TargetError, UsageError
from ml_postgres_optimization.knobs.configuration import CONCURRENCY, RoleSetting
from ml_postgres_optimization.models.error_forest import ErrorForest
from ml_postgres_optimization.models.features import LoadContext
from ml_postgres_optimization.models.knob_forest import KnobForest
from ml_postgres_optimization.models.observation import Prediction
from ml_postgres_optimization.retry import Prior
from ml_postgres_optimization.retry.classification import ErrorClass
from ml_postgres_optimization.safety.consent import Approvals, Consent, PauseFile, parse_windows
from ml_postgres_optimization.target.seen import BloatedTable, Blocker
from ml_postgres_optimization.target.simulated.role_settings import APPLICATION
from ml_postgres_optimization.telemetry import Window
from ml_postgres_optimization.tuning.preventing import (
    SYMPTOM,
    Choice,
    Costs,
    Danger,
    Foresight,
    Hold,
    HoldOut,
    Means,
    Patience,
    Preventer,
    beginning,
    savings,
)
from ml_postgres_optimization.tuning.preventing.danger import Alarm
from ml_postgres_optimization.tuning.preventing.levers import (
    EndBlocker,
    FewerAtOnce,
    LargerWal,
    LessMemory,
    Offer,
    RoleTimeouts,
    Sight,
    VacuumTable,
)
from ml_postgres_optimization.tuning.preventing.occasion import Demand
from ml_postgres_optimization.tuning.progress import Stage
from ml_postgres_optimization.workload import LoadLimiter

DEADLOCK, TIMEOUT = ErrorClass.DEADLOCK, ErrorClass.TIMEOUT
PATIENCE = Patience()
HOUR = 3600.0


def danger(probability, error_class=DEADLOCK):
    return Danger(error_class, Prediction(probability, probability / 2, 1.0), "errors-1")


@dataclass
class HalfOfMemory:
    """A lever on a setting of the server, for whatever class."""

    name = "half"

    def offer(self, danger, sight):
        return Offer(self.name, "half of work_mem", {"work_mem": int(sight.number("work_mem") / 2)})


class Scene:
    """A preventer on a simulated server, with windows whose dangers the test says."""

    def __init__(self, folder, *, seed=1, **more):
        self.bench = Bench(folder)
        self.told = []
        self.foretold = ()
        means = Means((HalfOfMemory(),), symptoms=lambda _: self.foretold, **more)
        self.preventer = Preventer(
            self.bench.laboratory,
            means,
            rng=random.Random(seed),
            subscribers=[lambda occasion, message: self.told.append((occasion, message))],
        )

    def pass_windows(self, count, *dangers):
        """Let so many windows pass, at whose end these dangers are foretold."""
        for _ in range(count):
            standing = self.preventer.standing(self.bench.initial)
            window = self.bench.laboratory.watch(10.0, standing)
            self.foretold = dangers
            self.preventer.see(window, self.bench.initial)
        return self

    def until(self, choice):
        """Let occasions pass until one of this choice is open."""
        for _ in range(10):
            self.pass_windows(PATIENCE.rising, danger(0.9))
            if self.told[-1][0].choice is choice:
                return self.told[-1][0]
            self.pass_windows(3 * PATIENCE.horizon, danger(0.0))
        raise AssertionError(f"never {choice}")

    @property
    def memory(self):
        return self.bench.in_force()["work_mem"]

    def is_as_before(self):
        return self.bench.in_force() == self.bench.initial and not self.bench.journal.state.unfinished


@pytest.fixture
def scene(tmp_path):
    return Scene(tmp_path)


def test_a_lever_is_held_as_long_as_the_danger_lasts_and_then_put_back(scene):
    usual = scene.memory
    occasion = scene.until(Choice.ACTED)
    assert scene.memory == usual / 2
    assert len(scene.bench.journal.state.unfinished) == 1
    scene.pass_windows(20, danger(0.6))
    assert scene.memory == usual / 2
    windows = scene.bench.store.windows()[-20:]
    assert {window.configuration_id for window in windows} == {occasion.after.id}
    scene.pass_windows(PATIENCE.calm - 1, danger(0.1)).pass_windows(1, danger(0.3))
    assert scene.memory == usual / 2, "between the two thresholds nothing flutters"
    scene.pass_windows(PATIENCE.calm, danger(0.1))
    assert scene.is_as_before()
    ended, message = scene.told[-1]
    assert (ended.id, ended.windows, ended.is_whole) == (occasion.id, PATIENCE.horizon, True)
    assert abs(ended.undone) < 0.1 * ended.due, "the load is as it was"
    assert message.endswith("it is over, for the danger is past")


class Blocked(RoleTimeouts):
    """The lever as it is where a session waits for a lock."""

    def offer(self, danger, sight):
        gauges = {**sight.window.gauges, "activity.blocked_sessions": 1.0}
        return super().offer(danger, replace(sight, window=replace(sight.window, gauges=gauges)))


def test_new_sessions_of_a_role_that_was_named_get_time_limits_while_the_danger_lasts(scene):
    target = scene.bench.target
    limit, idle = (
        RoleSetting(name, APPLICATION, "simulated").key
        for name in ("lock_timeout", "idle_in_transaction_session_timeout")
    )
    target.restore(limit, "1s")
    means = scene.preventer._means
    for roles, choice in ([["somebody"], Choice.ADVISED], [[APPLICATION], Choice.ACTED]):
        lever = Blocked(roles, "simulated", target.settings)
        advice = Blocked()
        scene.preventer._means = replace(means, levers=(lever, advice))
        scene.preventer._advised_at.clear()
        occasion = scene.until(choice)
        assert not {limit, idle} & scene.bench.in_force().keys()
        now = {key: setting.written_value for key, setting in target.settings([limit, idle]).items()}
        # a limit that is shorter already stays
        assert now == {limit: "1s", idle: "10000" if choice is Choice.ACTED else None}
        scene.pass_windows(3 * PATIENCE.horizon, danger(0.0))
        assert {setting.written_value for setting in target.settings([limit, idle]).values()} == {"1s", None}
        assert ("those that are open keep theirs" in occasion.deed) == (choice is Choice.ACTED)
    assert scene.is_as_before()


def test_what_is_held_out_lasts_for_the_horizon_and_changes_nothing(scene):
    occasion = scene.until(Choice.HELD_OUT)
    assert scene.is_as_before()
    assert occasion.after["work_mem"] == scene.memory / 2, "what would have been done is kept"
    scene.pass_windows(PATIENCE.horizon - 1, danger(0.9))
    assert scene.preventer.is_open
    scene.pass_windows(1, danger(0.9))
    assert not scene.preventer.is_open
    assert scene.told[-1][0].is_whole


def test_nothing_is_done_below_the_threshold_nor_for_a_single_window(scene):
    scene.pass_windows(50, danger(Costs().threshold - 0.01))
    for _ in range(20):
        scene.pass_windows(1, danger(0.9)).pass_windows(1, danger(0.4))
    assert not scene.told
    assert not scene.bench.journal.state.trials


def test_levers_are_pulled_for_half_of_the_time_at_most_and_one_at_a_time(scene):
    """A danger that never ends, of two classes at once."""
    opened = []
    for _ in range(300):
        scene.pass_windows(1, danger(0.9), danger(0.8, TIMEOUT))
        opened.append(scene.preventer.is_open)
        assert len(scene.bench.journal.state.unfinished) <= 1
    ended_seconds = [
        (occasion.choice, (occasion.ended_at - occasion.began_at).total_seconds())
        for occasion, _ in scene.told
        if occasion.ended_at is not None
    ]
    acted = sum(seconds for choice, seconds in ended_seconds if choice is Choice.ACTED)
    assert 0.2 <= acted / (len(opened) * 10.0) <= 0.5
    assert all(seconds == 10.0 * PATIENCE.horizon for choice, seconds in ended_seconds if choice is Choice.HELD_OUT)
    began = [occasion for occasion, _ in scene.told if occasion.ended_at is None]
    ended = [occasion for occasion, _ in scene.told if occasion.ended_at is not None]
    assert all(one.ended_at < two.began_at for one, two in itertools.pairwise(ended))
    assert [one.id for one in began[: len(ended)]] == [one.id for one in ended]


@given(seed=st.integers(0, 2**32), classes=st.lists(st.sampled_from(list(ErrorClass)), max_size=60))
def test_of_every_five_occasions_of_a_class_one_is_held_out(seed, classes):
    hold_out = HoldOut(random.Random(seed))
    drawn = {}
    for name in classes:
        drawn.setdefault(name, []).append(hold_out.draw(name))
    for choices in drawn.values():
        for block in itertools.batched(choices, 5) if hasattr(itertools, "batched") else _batches(choices):
            held_out = list(block).count(Choice.HELD_OUT)
            assert held_out == 1 if len(block) == 5 else held_out <= 1


def _batches(choices):
    return [choices[at : at + 5] for at in range(0, len(choices), 5)]


def test_the_place_of_the_one_that_is_held_out_is_drawn():
    places = {HoldOut(random.Random(seed)).draw(DEADLOCK) for seed in range(30)}
    assert places == {Choice.ACTED, Choice.HELD_OUT}


@pytest.mark.parametrize("how", [KeyboardInterrupt, ValueError, None])
def test_whatever_ends_the_run_it_is_put_back(scene, how):
    with pytest.raises(how) if how else scene.preventer, scene.preventer:
        scene.until(Choice.ACTED)
        assert not scene.is_as_before()
        if how:
            raise how
    assert scene.is_as_before()
    assert not scene.told[-1][0].is_whole


def test_a_pause_puts_it_back_and_the_occasion_counts_all_the_same(tmp_path):
    """Were it left out, only occasions that were acted on would be."""
    scene = Scene(tmp_path)
    pause = PauseFile(tmp_path)
    scene.bench.laboratory.guard.consent = Consent(scene.bench.clock, pause=pause)
    scene.until(Choice.ACTED)
    pause.pause(scene.bench.clock, "a release")
    scene.pass_windows(1, danger(0.9))
    assert scene.is_as_before()
    scene.pass_windows(PATIENCE.horizon, danger(0.0))
    ended, message = scene.told[-1]
    assert ended.is_whole
    assert "it is over, for Changes are paused" in message


@pytest.mark.parametrize("why", ["paused", "window closes", "approve", "only advice", "harmed", "no lever"])
def test_where_nothing_may_or_can_be_done_it_advises_once(tmp_path, why):
    scene = Scene(tmp_path, only_advises=why == "only advice", harmed=lambda: [DEADLOCK] if why == "harmed" else [])
    clock = scene.bench.clock
    if why == "paused":
        pause = PauseFile(tmp_path)
        pause.pause(scene.bench.clock, "a release")
        scene.bench.laboratory.guard.consent = Consent(clock, pause=pause)
    elif why == "window closes":
        # within the minute that an occasion takes at least
        closes = clock.now().astimezone(UTC) + timedelta(seconds=90)
        windows = parse_windows(f"{clock.now().astimezone(UTC):%H:%M}-{closes:%H:%M} UTC", lambda: UTC)
        scene.bench.laboratory.guard.consent = Consent(clock, windows=windows)
    elif why == "approve":
        scene.bench.laboratory.guard.consent = Consent(clock, approvals=Approvals(tmp_path, clock))
    elif why == "no lever":
        scene.preventer._means = replace(scene.preventer._means, levers=(TooMuch(), Advice()))
    scene.pass_windows(30, danger(0.9))
    ((occasion, message),) = scene.told
    assert occasion.choice is Choice.ADVISED
    assert "advised" in message
    assert not scene.bench.journal.state.trials
    scene.pass_windows(PATIENCE.calm, danger(0.0)).pass_windows(2, danger(0.9))
    assert len(scene.told) == 1, "within the hour"
    scene.pass_windows(360, danger(0.0)).pass_windows(2, danger(0.9))
    assert len(scene.told) == 2, "another danger is another matter"


@dataclass
class TooMuch:
    """What the guard refuses."""

    name = "too much"

    def offer(self, danger, sight):
        return Offer(self.name, "all of the memory", {"work_mem": 1 << 40})


@dataclass
class Advice:
    name = "advice"

    def offer(self, danger, sight):
        return Offer(self.name, "do something")


def test_what_is_refused_after_the_lot_was_drawn_stays_among_those_acted_on(scene, monkeypatch):
    def refuse(*_arguments, **_more):
        raise ChangeRefused("The server says no.", "Ask it.")

    monkeypatch.setattr(type(scene.bench.target), "write", refuse)
    scene.until(Choice.ACTED)
    scene.pass_windows(PATIENCE.horizon, danger(0.0))
    ended, _ = scene.told[-1]
    assert (ended.choice, ended.is_whole, ended.ending) == (Choice.ACTED, True, "The server says no")
    assert scene.is_as_before()


def test_what_somebody_else_changes_meanwhile_stays_and_ends_it(scene):
    scene.until(Choice.ACTED)
    scene.bench.target.write("work_mem", 5000)
    scene.bench.target.reload()
    scene.pass_windows(1, danger(0.9))
    assert scene.memory == 5000
    assert not scene.bench.journal.state.unfinished
    assert "somebody else has changed" in next(message for one, message in reversed(scene.told) if one.ended_at)


def with_mean(window, ratio):
    """Return a window whose operations took so many times as long."""
    kinds = {
        kind: replace(seen, response=replace(seen.response, sum_seconds=ratio * seen.response.sum_seconds))
        for kind, seen in window.operations.items()
    }
    return replace(window, operations=kinds)


def test_a_lever_that_makes_it_twice_as_slow_is_put_back_and_the_occasion_looked_at_to_its_end(scene):
    scene.until(Choice.ACTED)
    window = scene.bench.laboratory.watch(10.0, scene.preventer.standing(scene.bench.initial))
    before = math.exp(median(scene.preventer._brake._before))
    mean = window.response.mean_seconds
    scene.foretold = (danger(0.9),)
    for ratio in (1.9, 9.0, 9.0, 1.9, 2.1, 2.1):
        scene.preventer.see(with_mean(window, ratio * before / mean), scene.bench.initial)
        assert not scene.is_as_before()
    scene.preventer.see(with_mean(window, 2.1 * before / mean), scene.bench.initial)
    assert scene.is_as_before()
    ended, _ = scene.told[-1]
    assert (ended.ending, ended.is_whole) == ("it was slower", True)


@pytest.mark.parametrize("choice", [Choice.ACTED, Choice.HELD_OUT])
def test_a_window_in_which_nothing_ends_is_one_with_an_error_in_both_kinds(scene, choice):
    scene.until(choice)
    scene.preventer._laboratory = replace(scene.bench.laboratory, load=scene.bench.laboratory.load or object())
    window = scene.bench.laboratory.watch(10.0, scene.preventer.standing(scene.bench.initial))
    for _ in range(PATIENCE.horizon):
        scene.foretold = (danger(0.0),)
        scene.preventer.see(replace(window, operations={}), scene.bench.initial)
    ended, _ = scene.told[-1]
    assert (ended.windows, ended.errors, ended.operations, ended.is_whole) == (6, 6, 0, True)


def test_an_occasion_lasts_for_an_hour_at_most_however_long_a_window_is(scene):
    scene.until(Choice.ACTED)
    window = scene.bench.laboratory.watch(10.0, scene.preventer.standing(scene.bench.initial))
    long = replace(window, ended_at=window.started_at + timedelta(minutes=20))
    scene.foretold = (danger(0.9),)
    for _ in range(3):
        assert scene.preventer.is_open
        scene.preventer.see(long, scene.bench.initial)
    assert scene.told[-1][0].ending == "it has lasted long enough"
    assert scene.is_as_before()


def test_what_could_not_be_put_back_is_told_and_is_not_over(scene, monkeypatch):
    begun = scene.until(Choice.ACTED)

    def fail(*_arguments, **_more):
        raise TargetError("The server is away.", "Wait.")

    with monkeypatch.context() as broken:
        broken.setattr(type(scene.bench.target), "settings", fail)
        with pytest.raises(TargetError):
            scene.preventer.end("the danger is past")
    ended, message = scene.told[-1]
    assert (ended.id, ended.ended_at) == (begun.id, None)
    assert "could not be put back yet" in message
    assert "it is over" not in message


def test_where_the_journal_takes_no_intent_it_is_advice(scene, monkeypatch):
    def full(*_arguments, **_more):
        raise JournalError("The disk is full.", "Make room.")

    monkeypatch.setattr(type(scene.bench.journal), "append", full)
    scene.pass_windows(10, danger(0.9))
    assert scene.is_as_before()
    (_, (advised, message)) = scene.told
    assert (advised.choice, advised.ending) == (Choice.ADVISED, "The disk is full")
    assert "advised (The disk is full)" in message


def test_windows_with_something_else_in_between_do_not_follow_each_other(scene):
    scene.pass_windows(1, danger(0.9))
    scene.preventer.forget()
    scene.pass_windows(1, danger(0.9))
    assert not scene.told
    scene.pass_windows(1, danger(0.9))
    assert scene.told


def blocked_by(pid, since_seconds=0):
    began = datetime(2026, 3, 1, tzinfo=UTC)
    blocker = Blocker(pid, began, began + timedelta(seconds=since_seconds), "shop", "", 9.0, 1)
    return Danger(TIMEOUT, Prediction(1.0, 1.0, 1.0), SYMPTOM, blocker)


def test_a_session_rises_only_if_it_is_the_same_in_the_same_pause_in_every_window():
    alarm = Alarm(0.5, Patience(rising=2))
    for other in (blocked_by(1), blocked_by(2), blocked_by(1), blocked_by(1, since_seconds=3), danger(0.9, TIMEOUT)):
        assert alarm.see([other]) == []
    assert alarm.see([blocked_by(1)]) == []
    assert alarm.see([blocked_by(1)]) == [blocked_by(1)]


@dataclass
class Sessions:
    """Sessions of which none may be ended by our role."""

    error: Exception | None = None
    ended: int = 0

    def end_blocker(self, blocker):
        self.ended += 1
        if self.error:
            raise self.error
        return True


def test_where_a_session_is_the_cause_nothing_but_its_end_is_acted_on(tmp_path):
    told = Scene(tmp_path)
    sessions = Sessions()
    told.preventer._means = replace(
        told.preventer._means, levers=(EndBlocker(), HalfOfMemory(), FewerAtOnce()), server=sessions
    )
    told.pass_windows(5, blocked_by(1))
    ((occasion, message),) = told.told
    assert occasion.choice is Choice.ADVISED
    assert "have it commit or roll back" in message
    assert told.is_as_before()
    assert not sessions.ended


@pytest.mark.parametrize("error", [None, TargetError("The role may not.", "Grant it.")])
def test_a_session_that_may_not_be_ended_is_no_end_of_the_run(tmp_path, error):
    scene = Scene(tmp_path)
    sessions = Sessions(error)
    scene.preventer._means = replace(
        scene.preventer._means, levers=(HalfOfMemory(), EndBlocker(is_permitted=True)), server=sessions
    )
    scene.pass_windows(2 + PATIENCE.horizon, blocked_by(1))
    occasion = scene.told[0][0]
    assert occasion.lever == "blocker"
    assert (occasion.choice, sessions.ended) == (Choice.ACTED, 1)
    scene.pass_windows(PATIENCE.calm, danger(0.0))
    assert scene.told[-1][0].ending == ("The role may not" if error else "the danger is past")


@dataclass
class Vacuuming:
    """A server whose tables can be vacuumed."""

    begun: list = field(default_factory=list)
    ended: int = 0
    is_free: bool = True

    def begin_vacuum(self, table):
        self.begun.append(table)
        return self.is_free

    def end_vacuum(self):
        self.ended += 1


BLOATED = BloatedTable("shop", "orders", 30_000, 100_000, is_vacuumed=False, may_be_vacuumed=True)


@pytest.mark.parametrize("is_free", [True, False])
def test_a_table_is_vacuumed_by_permission_and_no_longer_than_the_danger_lasts(scene, is_free):
    server = Vacuuming(is_free=is_free)
    lever = VacuumTable(is_permitted=True, find=lambda: BLOATED)
    scene.preventer._means = replace(scene.preventer._means, levers=(lever,), server=server)
    scene.pass_windows(PATIENCE.rising, danger(0.9, TIMEOUT))
    while scene.told[-1][0].choice is Choice.HELD_OUT:
        assert not server.begun
        scene.pass_windows(3 * PATIENCE.horizon, danger(0.0, TIMEOUT)).pass_windows(
            PATIENCE.rising, danger(0.9, TIMEOUT)
        )
    occasion, message = scene.told[-1]
    assert (occasion.choice, server.begun, server.ended) == (Choice.ACTED, [BLOATED], 0)
    assert "VACUUM shop.orders" in message
    assert scene.is_as_before(), "no setting is touched"
    scene.pass_windows(PATIENCE.horizon + PATIENCE.calm, danger(0.0, TIMEOUT))
    assert server.ended == 1
    assert scene.told[-1][0].ending == ("the danger is past" if is_free else "a table is being vacuumed already")


@pytest.mark.parametrize(
    "table",
    [
        None,
        replace(BLOATED, is_vacuumed=True),
        replace(BLOATED, may_be_vacuumed=False),
        replace(BLOATED, dead_rows=9_999),
        replace(BLOATED, live_rows=1_000_000),
    ],
)
def test_a_table_that_cannot_or_need_not_be_vacuumed_is_not(tmp_path, table):
    bench = Bench(tmp_path)
    window = bench.laboratory.watch(10.0, bench.initial)
    gauges = {**window.gauges, "tables.dead_tuples": 50_000.0, "tables.live_tuples": 100_000.0}
    guard = bench.laboratory.guard
    sight = Sight(replace(window, gauges=gauges), bench.initial, guard.catalogue, guard.machine, 0.5)
    offer = VacuumTable(is_permitted=True, find=lambda: table).offer(danger(0.9, TIMEOUT), sight)
    assert offer.is_advice
    assert "50,000 rows are dead" in offer.deed
    assert VacuumTable(find=lambda: BLOATED).offer(danger(0.9, TIMEOUT), sight).is_advice
    assert VacuumTable(is_permitted=True, find=lambda: BLOATED).offer(danger(0.9), sight) is None


def test_the_levers_say_what_they_would_do(tmp_path):
    bench = Bench(tmp_path)
    guard = bench.laboratory.guard
    window = bench.laboratory.watch(10.0, bench.initial)

    def sight(**rates):
        seen = replace(window, rates={**window.rates, **rates.pop("rates", {})}, **rates)
        return Sight(seen, bench.initial, guard.catalogue, guard.machine, 0.5)

    assert FewerAtOnce().offer(danger(0.9), sight()).values == {CONCURRENCY: 20}
    assert FewerAtOnce().offer(danger(0.9, ErrorClass.CONNECTION), sight()) is None
    assert LessMemory().offer(danger(0.9, ErrorClass.RESOURCES), sight()) is None, "connections, for all it knows"
    short = LessMemory().offer(danger(0.9, ErrorClass.RESOURCES), sight(errors={"53200": 1}))
    assert short.values["work_mem"] == bench.initial["work_mem"] / 2
    assert LargerWal().offer(danger(0.9, TIMEOUT), sight()) is None
    storm = {"checkpointer.requested_checkpoints_per_second": 0.1}
    larger = LargerWal().offer(danger(0.9, TIMEOUT), sight(rates=storm))
    assert larger.values["max_wal_size"] == 2 * bench.initial["max_wal_size"]


def test_the_load_is_held_below_on_its_sessions_and_let_go(scene):
    scene.preventer._means = replace(scene.preventer._means, levers=(FewerAtOnce(),))
    before = scene.bench.target.concurrency
    scene.pass_windows(PATIENCE.rising, danger(0.9))
    half = scene.told[0][0].after[CONCURRENCY]
    assert scene.bench.held == [half]
    scene.pass_windows(PATIENCE.horizon + PATIENCE.calm, danger(0.0))
    assert scene.bench.held == [half, None]
    assert scene.told[-1][0].ending == "the danger is past"
    assert scene.bench.target.concurrency == before


def deadlocks_above(limit):
    """A history of a server on which deadlocks come above so many at once."""
    rng = np.random.default_rng(3)
    numbers = np.repeat(rng.choice([4, 8, 12, 16, 24], size=60), 5)
    base = history(1, 1, log_mean=lambda *_: -6.0)[0].configuration

    def sqlstates(number, _rng):
        return {"40P01": 3} if numbers[number] > limit and rng.random() < 0.7 else {}

    return base, history(
        300,
        1,
        log_mean=lambda *_: -6.0,
        sqlstates=sqlstates,
        configuration=lambda number: base.replaced({CONCURRENCY: int(numbers[number])}),
    )


def test_the_forest_foretells_only_what_it_has_learned_and_gives_a_limit_its_prior():
    base, observed = deadlocks_above(10)
    model = ErrorForest.fit(observed, seed=1)
    last = replace(observed[-1], configuration=base.replaced({CONCURRENCY: 24}))
    foresight = Foresight(model, "errors-1", last)
    if not foresight.trusted:
        pytest.fail(f"nothing was learned: {model.score}")
    (foretold,) = foresight.dangers()
    assert foretold.error_class is DEADLOCK
    assert foretold.probability.value > 0.5
    prior = foresight.prior(0.5, most=24)
    assert prior.ceiling == prior.begin <= 12
    assert foresight.probability(TIMEOUT, base) is None
    limiter = LoadLimiter.of(prior)
    assert (limiter.initial, limiter.most) == (prior.begin, prior.ceiling)
    calm = Foresight(model, "errors-1", replace(last, configuration=base.replaced({CONCURRENCY: 4})))
    assert calm.prior(0.5, most=24) == Prior(begin=4)
    untrusted = replace(model, score={DEADLOCK: replace(model.score[DEADLOCK], occurrences=0)})
    assert Foresight(untrusted, "errors-1", last).dangers() == ()


def test_a_load_is_held_below_what_the_forest_finds_without_danger_until_it_is_past():
    _, observed = deadlocks_above(10)
    model = ErrorForest.fit(observed, seed=1)
    hold, patience = Hold(), Patience()

    def see(running):
        seen = next(one for one in reversed(observed) if one.configuration[CONCURRENCY] == running)
        return hold.see(Foresight(model, "errors-1", seen), now=24)

    assert [see(24) for _ in range(patience.rising)][:-1] == [None] * (patience.rising - 1)
    assert hold.ceiling == 12, "never less than half"
    # what is in force then is without danger, and it is let go after the horizon
    told = [see(4) for _ in range(patience.horizon + patience.calm)]
    assert told[: patience.horizon - 1] == [12] * (patience.horizon - 1)
    assert told[-1] is None
    assert [see(4) for _ in range(5)] == [None] * 5


@pytest.mark.parametrize(("slow_above", "slow_below"), [(10, 0), (100, 12)])
def test_a_limiter_begins_with_the_number_that_answers_soonest(slow_above, slow_below):
    rng = np.random.default_rng(3)
    numbers = np.repeat(rng.choice([1, 2, 4, 6, 8, 10, 12, 16, 24, 48], size=60), 5)

    def log_mean(number, _rng):
        return -6.0 + (numbers[number] > slow_above) + (numbers[number] < slow_below)

    observed = history(
        300, 1, log_mean=log_mean, configuration=lambda number: STOCK.replaced({CONCURRENCY: int(numbers[number])})
    )
    model = KnobForest.fit(observed, seed=1)
    context = LoadContext.of(observed[-1].window)
    found = beginning(model, STOCK, context, most=90)
    assert slow_below <= found <= slow_above
    assert abs(math.log(found / 8)) < 0.5, "of the good ones the nearest to the usual"
    assert beginning(model, STOCK, context, most=2) in ((None,) if slow_below else (None, 1, 2))
    untrusted = replace(model, score=replace(model.score, skill=replace(model.score.skill, low=-1.0)))
    assert beginning(untrusted, STOCK, context, most=90) is None


def test_an_alarm_takes_the_most_probable_of_those_that_have_risen():
    alarm = Alarm(0.5, Patience(rising=2))
    assert alarm.see([danger(0.6), danger(0.9, TIMEOUT)]) == []
    assert alarm.see([danger(0.6), danger(0.9, TIMEOUT)]) == [danger(0.9, TIMEOUT), danger(0.6)]
    assert alarm.see([danger(0.6)]) == [danger(0.6)]
    alarm.forget()
    assert alarm.see([danger(0.6)]) == []


@pytest.mark.parametrize("bad", [{"error": 1.0, "effect": 0.5}, {"error": math.nan}, {"effect": 0.0}])
def test_costs_at_which_nothing_is_worth_it_are_refused(bad):
    with pytest.raises(ValueError, match="worth a prevention"):
        Costs(**bad)


@dataclass(frozen=True)
class Result:
    error_class: str
    choice: str
    errors: int
    operations: int = 1000
    response_seconds: float = 2.0
    due: float = 1000.0
    undone: float = 0.0
    is_whole: bool = True


def results(rng, acted, held_out, chances):
    """Return occasions in which errors come by these chances, and are many or few."""
    for choice, count, chance in ((Choice.ACTED, acted, chances[0]), (Choice.HELD_OUT, held_out, chances[1])):
        for _ in range(count):
            yield Result("deadlock", choice, int(rng.geometric(0.2)) if rng.random() < chance else 0)


@pytest.mark.parametrize("chances", [(0.5, 0.5), (0.1, 0.6), (0.02, 0.9)])
@pytest.mark.parametrize("counts", [(20, 5), (80, 20)])
def test_the_interval_of_what_was_saved_holds_the_truth_as_often_as_it_says(counts, chances):
    rng, held = np.random.default_rng(1), 0
    for _ in range(300):
        (saving,) = savings(results(rng, *counts, chances))
        held += saving.difference.low <= chances[0] - chances[1] <= saving.difference.high
    # 0.95 within three standard errors of 300, and what Newcombe found for so few
    assert held / 300 >= 0.91


def test_the_ledger_says_what_it_knows_and_what_not():
    few = [Result("deadlock", Choice.ACTED, 0)] * 20 + [Result("deadlock", Choice.HELD_OUT, 9)] * 4
    left_out = [Result("deadlock", Choice.ADVISED, 9), Result("deadlock", Choice.ACTED, 9, is_whole=False)]
    (saving,) = savings([*few, *left_out])
    assert saving.verdict == "not decidable yet"
    assert (saving.acted.occasions, saving.held_out.occasions) == (20, 4)
    (saving,) = savings([*few, Result("deadlock", Choice.HELD_OUT, 9)])
    assert saving.verdict == "saved"
    assert (saving.acted.errors_per_1000, saving.held_out.errors_per_1000) == (0.0, 9.0)
    assert saving.difference.low == pytest.approx(-1.0)
    assert saving.difference.high < -0.4
    turned = [replace(one, choice=Choice.ACTED if one.choice is Choice.HELD_OUT else Choice.HELD_OUT) for one in few]
    (saving,) = savings([*turned, Result("deadlock", Choice.ACTED, 9)])
    assert saving.verdict == "harmed"
    assert savings([]) == []


def test_a_lever_that_keeps_errors_away_by_letting_less_through_has_saved_nothing():
    held_out = [Result("deadlock", Choice.HELD_OUT, 9)] * 5
    for undone, verdict in ((100.0, "saved"), (101.0, "no difference shown")):
        acted = [Result("deadlock", Choice.ACTED, 0, due=1000.0, undone=undone)] * 20
        (saving,) = savings([*acted, *held_out])
        assert saving.verdict == verdict
        assert (saving.acted.error_share, saving.acted.undone_share) == (0.0, undone / 1000)
    without = [replace(one, errors=0) for one in held_out]
    assert savings([*acted, *without])[0].verdict == "harmed"


def test_what_was_to_be_done_is_what_came_due_or_as_much_as_before():
    start = datetime(2026, 3, 1, tzinfo=UTC)

    def window(commits, due=None):
        rates = {"database.commits_per_second": commits} | ({} if due is None else {"load.due_per_second": due})
        return Window(start, start + timedelta(seconds=10), "c", rates=rates)

    demand = Demand(2)
    assert demand.of(window(5.0), is_ours=False) == (0.0, 0.0), "nothing is known before"
    for commits in (1.0, 20.0, 30.0, math.nan):
        demand.see(window(commits), is_ours=False)
    assert demand.of(window(10.0), is_ours=False) == (250.0, 100.0)
    assert demand.of(window(math.nan), is_ours=False) == (0.0, 0.0)
    assert demand.of(window(10.0, due=40.0), is_ours=True) == (400.0, 0.0), "none of ours came to an end"


def test_a_continuous_run_holds_no_trial_and_learns_nothing_while_a_danger_is_met(tmp_path):
    watch = Watch(tmp_path, limit_seconds=0.0001, drafts=lambda _: [], connections=8)
    told, threatened = [], [HOUR / 6, HOUR / 4.5]

    def symptoms(window):
        seconds = (window.ended_at - watch.bench.clock._start).total_seconds()
        return [danger(0.9 if threatened[0] <= seconds <= threatened[1] else 0.0)]

    watch.controller._preventer = Preventer(
        watch.bench.laboratory,
        Means([HalfOfMemory()], symptoms=symptoms),
        subscribers=[lambda occasion, _: told.append(occasion)],
    )
    watch.run(0.4)
    ended = [occasion for occasion in told if occasion.ended_at]
    assert {occasion.choice for occasion in ended} >= {Choice.ACTED}
    trials = watch.chronicle.whole.trials
    assert trials
    for occasion in ended:
        for trial in trials:
            assert trial.ended_at <= occasion.began_at or trial.started_at >= occasion.ended_at
    met = [window for window in watch.bench.store.windows() if window.labels.get("state") == "preventing"]
    assert len(met) >= PATIENCE.horizon
    incumbents = {watch.bench.initial.id, *(trial.proposal.configuration.id for trial in trials)}
    for occasion in ended:
        during = [window for window in met if occasion.began_at <= window.started_at < occasion.ended_at]
        expected = occasion.after.id if occasion.choice is Choice.ACTED else occasion.before.id
        assert {window.configuration_id for window in during} == {expected}
    assert {window.configuration_id for window in watch.bench.store.windows()[-20:]} <= incumbents
    assert watch.bench.in_force() == watch.chronicle.incumbent


def test_a_prior_that_is_none_is_refused():
    assert Prior.foretold(None, 8) == Prior(8)
    assert Prior.foretold(0.7, 1) == Prior(1, 1)
    for begin, ceiling in ((0, None), (4, 3)):
        with pytest.raises(UsageError, match="is none"):
            Prior(begin, ceiling)
    with pytest.raises(UsageError, match="no probability"):
        Prior.foretold(1.2, 8)


def test_what_somebody_else_put_in_force_is_told_with_its_values(tmp_path):
    watch = Watch(tmp_path, limit_seconds=0.0001, drafts=lambda _: [], connections=8)

    def change():
        watch.bench.target.write("work_mem", 5000)
        watch.bench.target.reload()

    watch.at = {60.0: change}
    watch.run(0.05)
    (overtaken,) = watch.told(Stage.OVERTAKEN)
    assert overtaken.configuration == watch.chronicle.incumbent
    assert overtaken.configuration["work_mem"] == 5000
