"""Single parts of the load: chance neither reports nor vetoes them, however many there are."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from ml_postgres_optimization.telemetry import Histogram, OperationWindow, StatementCounters, Window
from ml_postgres_optimization.trials import Arm, Parts

TRIALS = 60
PAIRS = 30
START = datetime(2026, 1, 1, tzinfo=UTC)


def window_of(rng, queries, calls, *, turned=1.0):
    """Draw a block: queries come in Zipf's proportions, their times are lognormal, the first one is `turned`."""
    shares = 1 / np.arange(1, queries + 1)
    counts = rng.poisson(calls * shares / shares.sum())
    block_noise = np.exp(0.2 * rng.standard_normal())
    statements = {}
    for number, count in enumerate(counts.tolist()):
        if count:
            seconds = 0.01 * block_noise * rng.lognormal(0, 1, count).sum() * (turned if number == 0 else 1.0)
            statements[number, 0, 0] = StatementCounters(count, float(seconds), 0, 0, 0, 0, 0.0)
    return Window(START, START + timedelta(seconds=5), "c", {}, statements=statements)


def after(rng, queries, calls, *, turned=1.0, pairs=PAIRS):
    """Run pairs; return whether there was a veto at any of them, and what is reported at the end."""
    parts, vetoed = Parts(limit_ratio=1.5, alpha=0.05), False
    for _ in range(pairs):
        windows = {
            Arm.BASELINE: window_of(rng, queries, calls),
            Arm.CANDIDATE: window_of(rng, queries, calls, turned=turned),
        }
        parts.add(windows, candidate_first=bool(rng.random() < 0.5))
        vetoed = vetoed or parts.veto() is not None
    return vetoed, [effect.part for effect in parts.slower()]


@pytest.mark.parametrize(
    ("queries", "calls"),
    [(5, 1000), *(pytest.param(*one, marks=pytest.mark.long) for one in ((50, 200), (200, 400)))],
)
def test_equal_arms_are_hardly_ever_vetoed_and_nothing_is_reported(queries, calls):
    rng = np.random.default_rng(7)
    results = [after(rng, queries, calls) for _ in range(TRIALS)]
    assert sum(vetoed for vetoed, _ in results) <= 0.05 * TRIALS
    assert sum(bool(reported) for _, reported in results) <= 0.05 * TRIALS


def test_a_kind_that_finished_nothing_in_one_arm_is_no_part_of_the_pair():
    some = Histogram.of(np.array([0.01, 0.02]))
    busy = {"read": OperationWindow(some, some), "update": OperationWindow(some, some)}
    idle = {"read": OperationWindow(some, some), "update": OperationWindow(Histogram.empty(), Histogram.empty())}
    parts = Parts(limit_ratio=1.5, alpha=0.05)
    for operations in (idle, busy):
        windows = {
            Arm.BASELINE: Window(START, START + timedelta(seconds=5), "c", {}, operations=busy),
            Arm.CANDIDATE: Window(START, START + timedelta(seconds=5), "d", {}, operations=operations),
        }
        parts.add(windows, candidate_first=True)
    assert parts.slower() == ()
    assert parts.suspect() is None


def test_a_query_that_takes_three_times_as_long_is_found_and_named():
    rng = np.random.default_rng(7)
    results = [after(rng, 50, 500, turned=3.0) for _ in range(20)]
    assert all(vetoed for vetoed, _ in results)
    assert all("query 0" in reported for _, reported in results)
