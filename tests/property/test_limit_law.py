"""The limit finds the concurrency with the best throughput for its latency, wherever it starts, and stays near it."""

import random
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.retry.admission import ConcurrencyLimit, Outcome


@dataclass
class Server:
    """Cores, and Gunther's law: what each of n calls costs the others by waiting (sigma) and agreeing (kappa)."""

    cores: int
    sigma: float = 0.0
    kappa: float = 0.0
    conflicts: float = 0.0

    def throughput(self, n):
        return min(n, self.cores) / (1 + self.sigma * (n - 1) + self.kappa * n * (n - 1))

    def failing(self, n):
        return 1.0 - (1.0 - self.conflicts) ** (n - 1)

    def power(self, n):
        """Kleinrock's, with the exponent 2: the squared throughput of what succeeds, by latency."""
        return self.succeeding(n) ** 3 / n

    def succeeding(self, n):
        return self.throughput(n) * (1 - self.failing(n))

    @property
    def best(self):
        return max(range(1, 500), key=self.power)


class Load:
    """Calls that come as fast as they are let in, or at a rate."""

    def __init__(self, server, first, seed, *, rate=None):
        self.now = 0.0
        self.server, self.rate = server, rate
        self.limit = ConcurrencyLimit(first, seed=seed, monotonic_seconds=lambda: self.now)
        self.rng = random.Random(seed)
        self.at_work = 0
        self.queue = 0
        self.seen, self.queued = [], []

    def run(self, calls):
        for _ in range(calls):
            self._let_in()
            while not self.at_work:
                self._wait_for_arrival()
            self._until_one_ends()
        return self

    def _let_in(self):
        while self.at_work < self.limit.limit and (self.rate is None or self.queue):
            self.queue -= self.rate is not None
            self.at_work += 1

    def _wait_for_arrival(self):
        self.now += self.rng.expovariate(self.rate)
        self.queue += 1
        self._let_in()

    def _until_one_ends(self):
        n = self.at_work
        passed = self.rng.expovariate(self.server.throughput(n))
        if self.rate:
            self.queue += sum(1 for _ in range(self._poisson(self.rate * passed)))
        self.now += passed
        failed = self.rng.random() < self.server.failing(n)
        outcome = Outcome.IN_VAIN if failed else Outcome.SUCCESS
        self.limit.take(n, outcome, is_awaited=bool(self.queue))
        self.at_work -= 1
        self.seen.append(self.limit.settled)
        self.queued.append(self.queue)

    def _poisson(self, mean):
        count, left = 0, self.rng.expovariate(1.0)
        while left < mean:
            count, left = count + 1, left + self.rng.expovariate(1.0)
        return count


SERVERS = {
    "two cores": Server(2),
    "sixteen cores": Server(16),
    "many cores": Server(64, 0.02, 0.0005),
    "one lock": Server(64, 0.3),
    "one hot key": Server(64, 0.9, 0.01),
    "conflicts": Server(64, 0.05, conflicts=0.03),
}


@pytest.mark.parametrize("first", [1, 8, 200])
@pytest.mark.parametrize("name", SERVERS)
def test_it_comes_near_the_best_from_anywhere_and_stays_there(name, first):
    server = SERVERS[name]
    load = Load(server, first, seed=1).run(40_000)
    later = load.seen[20_000:]
    throughput = sum(server.succeeding(n) for n in later) / len(later)
    latency = sum(n / server.succeeding(n) for n in later) / len(later)
    assert throughput >= 0.7 * server.succeeding(server.best)
    assert latency <= 2.0 * server.best / server.succeeding(server.best)


@pytest.mark.parametrize("name", SERVERS)
def test_what_the_server_can_do_does_not_pile_up_before_it(name):
    """The best throughput for its latency is less than the most: who stays there serves less than is asked."""
    server = SERVERS[name]
    most = max(server.succeeding(n) for n in range(1, 300))
    for seed in range(3):
        load = Load(server, 8, seed, rate=0.8 * most).run(30_000)
        assert sum(load.queued[15_000:]) / 15_000 < 40


def test_it_does_not_grow_while_nobody_needs_it():
    server = SERVERS["sixteen cores"]
    load = Load(server, 8, seed=2, rate=2.0).run(20_000)
    assert max(load.seen) <= 8


def test_a_shortage_cuts_it_at_once_and_once_for_all_who_were_in():
    limit = ConcurrencyLimit(100)
    epoch = limit.epoch
    for concurrency in range(limit.limit, 0, -1):
        limit.take(concurrency, Outcome.SHORTAGE, epoch=epoch)
    assert limit.settled == 70
    limit.take(1, Outcome.SHORTAGE, epoch=limit.epoch)
    assert limit.settled == 49


@given(
    first=st.integers(1, 50),
    least=st.integers(1, 5),
    most=st.integers(50, 60),
    calls=st.lists(st.tuples(st.integers(1, 80), st.sampled_from(Outcome), st.floats(0, 1)), max_size=300),
)
@settings(max_examples=100)
def test_whatever_happens_it_stays_within_its_bounds(first, least, most, calls):
    now = 0.0
    limit = ConcurrencyLimit(max(first, least), least=least, most=most, monotonic_seconds=lambda: now)
    for concurrency, outcome, passed in calls:
        now += passed
        limit.take(concurrency, outcome)
        assert least <= limit.settled <= most
        assert least <= limit.limit <= most


@settings(max_examples=30)
@given(seed=st.integers(0, 999), ceiling=st.integers(1, 30), first=st.integers(1, 60))
def test_under_a_ceiling_no_more_are_let_in_and_what_was_learnt_before_comes_back(seed, ceiling, first):
    load = Load(Server(cores=8), first, seed).run(2_000)
    learnt = load.limit.settled
    load.limit.hold_below(ceiling)
    assert load.limit.limit <= ceiling
    while load.at_work > ceiling:
        load._until_one_ends()
    for _ in range(2_000):
        load.run(1)
        assert load.at_work <= ceiling
    under = load.limit.settled
    load.limit.hold_below(None)
    assert load.limit.settled == under
    if ceiling < load.limit._low:
        assert under == learnt, "blocks that the ceiling cut short teach nothing"


def test_a_ceiling_below_the_least_is_refused():
    with pytest.raises(UsageError, match="below the least"):
        ConcurrencyLimit(4, least=2).hold_below(1)
