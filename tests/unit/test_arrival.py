"""The schedule is a Poisson process, the keys follow Zipf's law, and both are functions of counters."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_postgres_optimization.workload import SOAK_MIX, OperationKind, OperationMix
from ml_postgres_optimization.workload.arrival import INTERVAL_SECONDS, Stream, ZipfKeys

READS = OperationMix({OperationKind.READ: 1})
KEYS = ZipfKeys(1_000, 0.99)


def counts(stream, rate, intervals):
    return np.array([len(stream.interval(number, rate, READS)[0]) for number in range(intervals)])


def test_counts_per_interval_have_the_mean_and_the_variance_of_a_poisson_process():
    found = counts(Stream(1, 0, KEYS), 300.0, 4_000)
    # standard errors: of the mean √(30/4000) = 0.087, of the variance about 30·√(2/4000) = 0.67
    assert abs(found.mean() - 30.0) < 5 * 0.087
    assert abs(found.var() - 30.0) < 5 * 0.67


def test_gaps_are_exponential():
    stream = Stream(2, 0, KEYS)
    due = np.concatenate([stream.interval(number, 2_000.0, READS)[0] for number in range(200)])
    gaps = np.sort(np.diff(due))
    law = 1.0 - np.exp(-2_000.0 * gaps)
    distance = np.abs(law - np.arange(1, gaps.size + 1) / gaps.size).max()
    # Kolmogorov-Smirnov: at 0.01 % the critical distance is 2.2/√n
    assert distance < 2.2 / np.sqrt(gaps.size)


def test_due_times_are_ascending_and_inside_their_interval():
    due, draws = Stream(3, 1, KEYS).interval(7, 5_000.0, SOAK_MIX)
    assert np.all(np.diff(due) >= 0)
    assert due[0] >= 7 * INTERVAL_SECONDS
    assert due[-1] < 8 * INTERVAL_SECONDS
    assert len(due) == len(list(draws.rows()))


def test_the_same_counters_give_the_same_operations():
    def rows(stream, number):
        due, draws = stream.interval(number, 1_000.0, SOAK_MIX)
        return due.tolist(), list(draws.rows())

    assert rows(Stream(5, 0, KEYS), 9) == rows(Stream(5, 0, ZipfKeys(1_000, 0.99)), 9)
    others = [Stream(6, 0, KEYS), Stream(5, 1, KEYS)]
    assert all(rows(other, 9) != rows(Stream(5, 0, KEYS), 9) for other in others)
    assert rows(Stream(5, 0, KEYS), 10) != rows(Stream(5, 0, KEYS), 9)


def test_blocks_are_not_the_intervals_again():
    stream = Stream(5, 0, KEYS)
    _, draws = stream.interval(3, 5_120.0, READS)
    assert list(draws.rows()) != list(stream.block(3, len(draws.key), READS).rows())


def test_kinds_come_as_the_mix_says():
    draws = Stream(8, 0, KEYS).block(0, 200_000, SOAK_MIX)
    found = np.bincount(draws.kind_index, minlength=len(OperationKind)) / 200_000
    assert np.allclose(found, SOAK_MIX.shares, atol=0.006)  # five standard errors of a half
    assert not found[SOAK_MIX.shares.index(0.0)]


@pytest.mark.parametrize(("count", "exponent"), [(1, 0.99), (2, 0.99), (10, 0.0), (50, 0.99), (50, 1.0), (200, 2.5)])
def test_ranks_follow_zipfs_law_exactly(count, exponent):
    size = 200_000
    ranks = ZipfKeys(count, exponent).draw_ranks(np.random.default_rng(4), size)
    weights = np.arange(1, count + 1.0) ** -exponent
    expected = size * weights / weights.sum()
    found = np.bincount(ranks, minlength=count + 1)[1:]
    chi_square = ((found - expected) ** 2 / expected).sum()
    freedom = count - 1
    # far beyond the 99.99 % quantile (normal approximation), where a wrong law would be by orders of magnitude
    assert chi_square <= freedom + 5 * np.sqrt(2 * freedom) + 10


def test_a_wrong_exponent_would_be_noticed():
    ranks = ZipfKeys(50, 1.03).draw_ranks(np.random.default_rng(4), 200_000)
    weights = np.arange(1, 51.0) ** -0.99
    expected = 200_000 * weights / weights.sum()
    found = np.bincount(ranks, minlength=51)[1:]
    assert ((found - expected) ** 2 / expected).sum() > 49 + 5 * np.sqrt(2 * 49) + 10


@given(count=st.integers(1, 3_000))
def test_scattering_is_a_permutation_of_the_keys(count):
    keys = ZipfKeys(count, 0.99).key_of(np.arange(1, count + 1))
    assert sorted(keys.tolist()) == list(range(1, count + 1))


@given(
    count=st.integers(1, 2**31),
    exponent=st.one_of(st.just(1.0), st.floats(0.0, 5.0)),
    seed=st.integers(0, 2**32),
)
def test_keys_are_always_keys(count, exponent, seed):
    keys = ZipfKeys(count, exponent).draw(np.random.default_rng(seed), 200)
    assert keys.min() >= 1
    assert keys.max() <= count


def test_hot_keys_lie_far_apart():
    keys = np.sort(ZipfKeys(400_000, 0.99).key_of(np.arange(1, 101)))
    # about 60 accounts share a page; evenly spread, a hundred would lie 4,000 apart
    assert np.diff(keys).min() > 1_000


@pytest.mark.parametrize(("count", "exponent"), [(0, 1.0), (2**31 + 1, 1.0), (10, -0.1)])
def test_a_law_that_does_not_exist_is_refused(count, exponent):
    with pytest.raises(ValueError, match="no Zipf law"):
        ZipfKeys(count, exponent)


@given(count=st.integers(2, 50), seed=st.integers(0, 1_000))
def test_the_two_accounts_of_a_transaction_differ(count, seed):
    draws = Stream(seed, 0, ZipfKeys(count, 0.99)).block(0, 300, READS)
    assert not np.any(draws.key == draws.other_key)
    assert draws.other_key.max() <= count
    assert draws.amount.min() >= 1
