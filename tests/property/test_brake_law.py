"""The brake on a lever: how often noise alone pulls it, and that what is slower does."""

import numpy as np
import pytest

from ml_postgres_optimization.tuning.preventing.danger import Brake

OCCASIONS = 4_000


def braked_share(deviation, windows, slower_by=1.0):
    """Return in which share of occasions it is pulled, with windows whose log means vary so much."""
    rng, pulled = np.random.default_rng(1), 0
    for _ in range(OCCASIONS):
        brake = Brake(6)
        for log_mean in rng.normal(0.0, deviation, 6):
            brake.see_before(float(log_mean))
        brake.begin()
        seen = rng.normal(np.log(slower_by), deviation, windows)
        pulled += any(brake.see(float(log_mean)) for log_mean in seen)
    return pulled / OCCASIONS


@pytest.mark.parametrize(("deviation", "windows", "most"), [(0.3, 6, 0.002), (0.3, 60, 0.01), (0.4, 6, 0.01)])
def test_noise_alone_hardly_ever_pulls_it(deviation, windows, most):
    assert braked_share(deviation, windows) <= most


def test_what_is_three_times_slower_pulls_it_within_the_horizon():
    assert braked_share(0.3, 6, slower_by=3.0) >= 0.9
    assert braked_share(0.0, 3, slower_by=2.01) == 1.0
    assert braked_share(0.0, 60, slower_by=1.99) == 0.0


def test_it_says_nothing_where_nothing_was_seen():
    brake = Brake(6)
    assert not any(brake.see(9.0) for _ in range(9)), "nothing came before"
    brake.see_before(float("nan"))
    brake.see_before(0.0)
    brake.begin()
    assert [brake.see(each) for each in (1.0, 1.0, float("nan"), 1.0, 1.0, 1.0)] == [False] * 5 + [True]
