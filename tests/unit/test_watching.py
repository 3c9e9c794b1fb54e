"""The pieces of a continuous run, each by itself: readings, profiles, changes, forecasts, memory."""

import math

import numpy as np
import pytest
from synthetic_windows import STOCK, make_window

from ml_postgres_optimization.telemetry import StatementCounters, Window
from ml_postgres_optimization.trials import Measure
from ml_postgres_optimization.tuning.watching import (
    Band,
    ChangeDetector,
    Departure,
    KnownLoad,
    LimitWatch,
    LoadMemory,
    Outlook,
    Patience,
    Profile,
    Reading,
    trend,
)
from ml_postgres_optimization.tuning.watching.usual import distance

PATIENCE = Patience(load_windows=3, response_windows=5)


def reading(number, *, rate=100.0, writes=0.3, seconds=0.002):
    total = round(rate * 10)
    written = round(total * writes)
    return Reading(number * 10.0, {"read": total - written, "write": written}, rate, seconds)


def idle(number):
    return Reading(number * 10.0, {}, 0.0, math.nan)


def usual(count=12, seed=1, sigma=0.03, **more):
    rng = np.random.default_rng(seed)
    return [reading(number, seconds=0.002 * math.exp(rng.normal(0, sigma)), **more) for number in range(count)]


def many(count, **more):
    return [reading(12 + number, **more) for number in range(count)]


def told(detector, readings):
    return [change.departure if (change := detector.see(one)) else None for one in readings]


def test_a_window_of_ours_is_read_by_the_measure_that_is_watched():
    window = make_window(0, mean_seconds=0.01, rng=np.random.default_rng(1))
    read = Reading.of(window)
    assert read.response_seconds == window.response.mean_seconds
    assert Reading.of(window, Measure.P99).response_seconds == window.response.quantile_seconds(0.99)
    assert sum(read.counts.values()) == window.operations_total
    assert read.rate_per_second == pytest.approx(window.due_total / 10)
    assert not read.is_idle


def test_a_window_of_others_is_read_from_their_statements():
    counters = {
        (7, 10, 5): StatementCounters(30, 0.3, 30, 0, 0, 0, 0.0),
        (7, 11, 5): StatementCounters(10, 0.1, 10, 0, 0, 0, 0.0),
        (8, 10, 5): StatementCounters(60, 0.6, 60, 0, 0, 0, 0.0),
    }
    plain = make_window(0, mean_seconds=0.01, rng=np.random.default_rng(1))
    window = Window(plain.started_at, plain.ended_at, STOCK.id, statements=counters)
    read = Reading.of(window)
    assert read.counts == {"7": 40, "8": 60}
    assert read.rate_per_second == pytest.approx(10.0)
    assert read.response_seconds == pytest.approx(0.01)
    assert Reading.of(Window(plain.started_at, plain.ended_at, STOCK.id)).is_idle


def test_a_band_is_wider_the_less_is_known_and_never_narrower_than_what_counts():
    values = [1.0, 1.1, 0.9, 1.05, 0.95, 1.0]
    few, more = Band.of(values, least=0.1), Band.of(values * 10, least=0.1)
    assert few.limit > more.limit > 0.1
    assert Band.of([1.0] * 1000, least=0.1).limit == pytest.approx(0.1, rel=0.02)
    assert few.excess(few.center + few.limit) == pytest.approx(1.0)


def test_what_a_proof_has_shown_is_usual_even_if_the_server_is_slow_now():
    slow = Profile.of(usual(), expected_seconds=0.001)
    assert slow.log_response.center == pytest.approx(math.log(0.001))
    assert Profile.of(usual(), expected_seconds=1.0).log_response.center == Profile.of(usual()).log_response.center


@pytest.mark.parametrize(
    ("change", "departure"),
    [
        ({"writes": 0.6}, Departure.MIX),
        ({"rate": 300.0}, Departure.RATE),
        ({"rate": 30.0}, Departure.RATE),
        ({"seconds": 0.006}, Departure.RESPONSE),
    ],
)
def test_a_change_that_lasts_is_told_after_as_many_windows_as_it_takes_and_as_long_as_it_stays(change, departure):
    detector = ChangeDetector(usual(), patience=PATIENCE)
    wanted = PATIENCE.of(departure)
    assert told(detector, many(wanted + 4, **change)) == [None] * (wanted - 1) + [departure] * 5


def test_what_gets_faster_wakes_nobody():
    assert not any(told(ChangeDetector(usual(), patience=PATIENCE), many(20, seconds=0.0002)))


def test_a_slow_response_to_another_load_is_the_loads_doing():
    detector = ChangeDetector(usual(), patience=PATIENCE)
    assert set(told(detector, many(10, rate=400.0, seconds=0.02))) == {None, Departure.RATE}


def test_one_usual_window_begins_the_count_anew_and_one_at_the_edge_does_not():
    detector = ChangeDetector(usual(), patience=PATIENCE)
    far, back = many(1, rate=300.0)[0], many(1)[0]
    assert not any(told(detector, [far, far, back, far, far]))
    edge = many(1, rate=100.0 * math.exp(0.85 * detector.profile.log_rate.limit))[0]
    assert told(ChangeDetector(usual(), patience=PATIENCE), [far, far, edge, far])[-1] is Departure.RATE


def test_an_idle_window_leaves_everything_as_it_was():
    far = many(1, rate=300.0)[0]
    assert told(ChangeDetector(usual(), patience=PATIENCE), [far, far, idle(3), far])[-1] is Departure.RATE
    assert not any(told(ChangeDetector(usual(), patience=PATIENCE), [idle(number) for number in range(50)]))


def test_usual_windows_teach_more_for_half_an_hour_and_then_no_more():
    detector = ChangeDetector(usual())
    for one in usual(400):
        detector.see(one)
    assert detector.profile.windows == 192
    assert detector.profile.log_rate.limit < ChangeDetector(usual()).profile.log_rate.limit


def test_a_rise_is_carried_on_and_a_stall_in_it_bends_nothing():
    rising = [reading(number, seconds=0.001 * math.exp(0.01 * number)) for number in range(60)]
    outlook = trend(rising, 100.0)
    assert outlook.seconds == pytest.approx(0.001 * math.exp(0.01 * 69), rel=0.01)
    stalled = [*rising[:30], reading(30, seconds=0.5), *rising[31:]]
    assert trend(stalled, 100.0).seconds == pytest.approx(outlook.seconds, rel=0.01)


def test_noise_around_a_level_is_no_trend():
    outlook = trend(usual(60, sigma=0.1), 100.0)
    assert outlook.seconds == pytest.approx(0.002, rel=0.1)
    assert "no trend" in str(outlook)


def test_a_few_windows_tell_nothing():
    assert trend(usual(19), 100.0) is None
    assert trend(usual(20), 100.0) is not None


def outlook(seconds):
    return Outlook(seconds, 10.0, "test")


def test_a_limit_is_threatened_by_the_middle_of_three_forecasts_in_a_row():
    watch = LimitWatch(0.005)
    course = [0.006, 0.006, 0.004, 0.006, 0.006, 0.006]
    found = [watch.see(usual(3), [outlook(0.001), outlook(seconds)]) for seconds in course]
    assert found[:-1] == [None] * 5
    assert not found[-1].is_broken
    assert found[-1].message.startswith("the limit of 5 ms will be exceeded: 6.00 ms in 10 s by the test, now ")


def test_a_limit_is_exceeded_when_a_minute_is_and_not_by_a_stall():
    watch = LimitWatch(0.005)
    assert watch.see([*usual(5), reading(5, seconds=1.0)], []) is None
    threat = watch.see(many(6, seconds=0.006), [])
    assert threat.is_broken
    assert "6.00 ms in the last 6 windows" in threat.message


def test_without_a_limit_nothing_is_threatened():
    assert LimitWatch(math.inf).see(many(6, seconds=1e6), [outlook(1e9)]) is None


def known(name, **more):
    return KnownLoad(name, Profile.of(usual(**more)), STOCK)


def test_a_load_is_recognised_by_most_of_its_windows_whatever_the_server_makes_of_it():
    memory = LoadMemory()
    memory.keep(known("day", rate=500.0))
    memory.keep(known("night", rate=20.0))
    assert memory.recognise(many(6, rate=500.0, seconds=1.0)).name == "day"
    assert memory.recognise([*many(4, rate=20.0), *many(2, rate=90.0)]).name == "night"
    assert memory.recognise(many(6, rate=100.0)) is None
    assert memory.recognise([]) is None


def test_of_many_loads_the_oldest_is_forgotten():
    memory = LoadMemory()
    for number in range(17):
        memory.keep(known(str(number), rate=10.0 * 3**number))
    assert memory.recognise(many(3, rate=10.0)) is None
    assert memory.recognise(many(3, rate=30.0)).name == "1"


def test_a_day_of_lasting_noise_wakes_nobody():
    """Noise of 20 % that lasts for a minute, in rate and response; benchmarks/watching.py draws months of it."""
    rng = np.random.default_rng(5)
    kept = math.exp(-10 / 60)
    pushed = 0.2 * math.sqrt(1 - kept**2)
    rate = response = 0.0
    readings = []
    for number in range(8640):
        rate, response = kept * rate + rng.normal(0, pushed), kept * response + rng.normal(0, pushed)
        readings.append(reading(number, rate=100 * math.exp(rate), seconds=0.002 * math.exp(response)))
    assert not any(told(ChangeDetector(readings[:12]), readings[12:]))


def test_the_distance_of_mixes():
    assert distance({"a": 1}, {"b": 1}) == 1.0
    assert distance({"a": 2, "b": 2}, {"a": 1, "b": 1}) == 0.0
    assert distance({}, {"a": 1}) == 0.0
