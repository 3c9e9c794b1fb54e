"""When a server may be changed: how windows are written, and what the clocks of a zone make of them."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_postgres_optimization.safety.consent import ChangeWindow, ChangeWindows, parse_windows

MADRID = ZoneInfo("Europe/Madrid")


def at(text, zone=UTC):
    return datetime.fromisoformat(text).replace(tzinfo=zone)


def windows(text, zone=UTC):
    return parse_windows(text, lambda: zone)


def test_a_window_over_midnight_belongs_to_the_day_on_which_it_begins():
    nights = windows("Mon-Fri 22:00-05:00")
    assert nights.is_open(at("2026-11-27 23:00"))  # Friday
    assert nights.is_open(at("2026-11-28 04:59:59"))
    assert not nights.is_open(at("2026-11-28 05:00"))
    assert not nights.is_open(at("2026-11-28 23:00"))
    assert not nights.is_open(at("2026-11-30 04:00"))  # Monday, after a Sunday
    assert nights.opens_at(at("2026-11-28 06:00")) == at("2026-11-30 22:00")
    assert nights.closes_at(at("2026-11-30 22:00")) == at("2026-12-01 05:00")


def test_without_any_it_is_always_open():
    always = ChangeWindows()
    assert always.is_open(at("2026-11-28 06:00"))
    assert always.closes_at(at("2026-11-28 06:00")) is None
    assert str(always) == "at any time"


def test_windows_that_meet_are_one():
    weekend = windows("Sat,Sun 00:00-24:00; Mon 00:00-06:00")
    assert weekend.closes_at(at("2026-11-28 12:00")) == at("2026-11-30 06:00")
    assert weekend.longest_seconds(at("2026-11-26 12:00")) == 54 * 3600
    assert windows("daily 00:00-24:00").closes_at(at("2026-11-28 12:00")) is None


def test_the_zone_is_named_or_given_and_always_stated():
    assert str(windows("22:00-05:00", MADRID)) == "daily 22:00-05:00 Europe/Madrid"
    assert str(windows("fri-Sun 9:00-24:00 UTC; tuesday,thu 1:30-2:30", MADRID)) == (
        "Fri-Sun 09:00-24:00 UTC; Tue,Thu 01:30-02:30 Europe/Madrid"
    )
    assert windows("Mon 08:00-09:00 Europe/Madrid").is_open(at("2026-11-30 07:30"))


def test_the_machines_zone_is_asked_for_only_where_none_is_named():
    def unknown():
        raise ValueError("name one")

    assert parse_windows("", unknown) == ChangeWindows()
    assert parse_windows("22:00-05:00 UTC", unknown).windows
    with pytest.raises(ValueError, match="name one"):
        parse_windows("22:00-05:00", unknown)


def test_days_may_go_over_the_end_of_the_week():
    assert windows("Sat-Mon 01:00-02:00").windows[0].days == {5, 6, 0}


def test_clocks_that_are_put_forward_and_back():
    """In Madrid 02:00 to 03:00 does not exist on 2027-03-28, and comes twice on 2026-10-25."""
    nights = windows("daily 01:00-04:00", MADRID)
    spring, autumn = at("2027-03-28 00:30"), at("2026-10-25 00:30")
    assert nights.closes_at(spring) - at("2027-03-28 00:00") == timedelta(hours=2)
    assert nights.closes_at(autumn) - at("2026-10-24 23:00") == timedelta(hours=4)
    assert nights.is_open(at("2026-10-24 23:00"))
    assert not nights.is_open(at("2026-10-25 03:00"))
    # a window that lies in the hour that does not exist is not there on that day
    assert not any(
        windows("daily 02:00-03:00", MADRID).is_open(at("2027-03-28 00:00") + timedelta(minutes=minutes))
        for minutes in range(0, 60)
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Mon-Fri", "'Mon-Fri' is no window"),
        ("Mon 22:00", "is no window"),
        ("Mon 22:00-22:00", "ends when it begins"),
        ("Mon 24:00-05:00", "ends when it begins"),
        ("Mon 22:60-23:00", "22:60 is no time of day"),
        ("Mon 22:00-25:00", "25:00 is no time of day"),
        ("Mon 22:00-24:01", "24:01 is no time of day"),
        ("Lunes 22:00-23:00", "'Lunes' is no day of the week"),
        ("Mon-Wed-Fri 22:00-23:00", "is no span of days"),
        ("Mon 22:00-23:00 Mars/Olympus", "'Mars/Olympus' is no time zone"),
        ("Mon 22:00-23:00 ../../etc/passwd", "is no time zone"),
        ("22:00-23:00 UTC UTC", "is no window"),
        ("Mon,,Tue 22:00-23:00", "'' is no day"),
        ("\u0661\u0662:00-13:00", "is no window"),
    ],
)
def test_what_is_no_window_is_refused_with_an_example(text, said):
    with pytest.raises(ValueError, match="Write it like Mon-Fri 22:00-05:00") as refused:
        windows(text)
    assert said in str(refused.value)


@given(st.text(max_size=40))
def test_whatever_is_typed_is_a_window_or_refused(text):
    try:
        parsed = windows(text)
    except ValueError as refused:
        assert str(refused)
    else:
        assert not parsed.windows or windows(str(parsed)) == parsed


_MINUTES = st.integers(0, 24 * 60 - 1)
_WINDOWS = st.builds(
    ChangeWindow,
    st.frozensets(st.integers(0, 6), min_size=1),
    _MINUTES,
    _MINUTES,
    st.sampled_from([UTC, MADRID, ZoneInfo("America/New_York"), ZoneInfo("Asia/Kolkata")]),
).filter(lambda window: window.begin_minutes != window.end_minutes)


@given(st.lists(_WINDOWS, min_size=1, max_size=3), st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31)))
def test_it_is_open_until_it_closes_and_closed_until_it_opens(entries, moment):
    whole, now = ChangeWindows(tuple(entries)), moment.replace(tzinfo=UTC)
    moment_before = timedelta(microseconds=1)
    if whole.is_open(now):
        end = whole.closes_at(now)
        if end is None:
            assert whole.is_open(now + timedelta(days=7) - moment_before)
        else:
            assert now < end
            assert whole.is_open(end - moment_before)
            assert not whole.is_open(end)
    else:
        begin = whole.opens_at(now)
        if begin is not None:
            assert now < begin
            assert not whole.is_open(begin - moment_before)
            assert whole.is_open(begin)


@given(_WINDOWS, st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31)))
def test_a_window_is_open_as_the_clock_on_the_wall_says(window, moment):
    """Apart from days on which the clocks change."""
    now = moment.replace(tzinfo=UTC)
    wall = now.astimezone(window.zone)
    around = [(now + timedelta(days=days)).astimezone(window.zone).utcoffset() for days in (-2, -1, 0, 1, 2)]
    if len(set(around)) > 1:
        return
    minutes, day = wall.hour * 60 + wall.minute, wall.weekday()
    begin, end = window.begin_minutes, window.end_minutes
    if begin < end:
        expected = day in window.days and begin <= minutes < end
    else:
        expected = (day in window.days and minutes >= begin) or ((day - 1) % 7 in window.days and minutes < end)
    assert ChangeWindows((window,)).is_open(now) == expected
