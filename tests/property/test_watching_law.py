"""Laws of telling a change from what is usual."""

import math

from hypothesis import given
from hypothesis import strategies as st

from ml_postgres_optimization.tuning.watching import ChangeDetector, Patience, Profile, Reading
from ml_postgres_optimization.tuning.watching.usual import distance

mixes = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 1000), min_size=1)
positive = st.floats(1e-4, 1e4)
readings = st.builds(
    Reading,
    st.floats(0, 1e6),
    st.fixed_dictionaries({"a": st.integers(1, 99), "b": st.integers(1, 99)}),
    positive,
    positive,
)


@given(mixes, mixes)
def test_a_distance_is_symmetric_between_none_and_all_and_nothing_from_itself(first, second):
    assert distance(first, second) == distance(second, first)
    assert 0 <= distance(first, second) <= 1
    assert distance(first, first) == 0


@given(mixes, mixes, mixes)
def test_a_detour_is_no_shorter(first, second, third):
    if all(sum(mix.values()) for mix in (first, second, third)):
        assert distance(first, third) <= distance(first, second) + distance(second, third) + 1e-9


@given(st.lists(readings, min_size=1, max_size=20), st.floats(0.01, 100))
def test_the_unit_of_rate_and_time_changes_nothing(seen, factor):
    scaled = [
        Reading(one.at_seconds, one.counts, one.rate_per_second * factor, one.response_seconds * factor)
        for one in seen
    ]
    profile, other = Profile.of(seen), Profile.of(scaled)
    for one, another in zip(seen, scaled, strict=True):
        assert math.isclose(profile.rate_excess(one), other.rate_excess(another), abs_tol=1e-6)
        assert math.isclose(profile.response_excess(one), other.response_excess(another), abs_tol=1e-6)


@given(readings, st.integers(2, 12), st.integers(1, 60))
def test_what_never_changes_is_never_a_change(one, learned, count):
    detector = ChangeDetector([one] * learned, patience=Patience(1, 1))
    assert not any(detector.see(one) for _ in range(count))


@given(st.lists(readings, min_size=2, max_size=40), st.integers(1, 9))
def test_nothing_is_told_before_it_has_lasted(seen, windows):
    detector = ChangeDetector(seen[:2], patience=Patience(windows, windows))
    assert not any(detector.see(one) for one in seen[2:][: windows - 1])
