"""Memory that runs out ends a trial: by what is left, and by how long it would last."""

import random
from dataclasses import replace

import pytest
from offline_bench import OfflineBench

from ml_postgres_optimization.telemetry import MemoryReading, VirtualClock
from ml_postgres_optimization.trials import (
    NO_GUARDS,
    Guards,
    MemoryRunsOut,
    MemoryWatch,
    Outcome,
    Proposal,
    TrialPlan,
    memory_unseen,
)

GB, MB = 1e9, 1024**2


def watched(left_bytes, shared_bytes=(), *, guards=None, every_seconds=1.0):
    """Look at one reading after the other; return how many there had been when memory ran out, and why, or None."""
    clock = VirtualClock()
    shared = [*shared_bytes, *[0.0] * (len(left_bytes) - len(shared_bytes))]
    readings = [MemoryReading(left, of_all) for left, of_all in zip(left_bytes, shared, strict=True)]
    watch = MemoryWatch(iter(readings).__next__, clock, guards or Guards())
    for number in range(1, len(readings) + 1):
        try:
            watch.look()
        except MemoryRunsOut as found:
            return number, str(found)
        clock.sleep(every_seconds)
    return None


def falling(first, per_second, seconds=30):
    return [first - per_second * second for second in range(seconds)]


def test_half_of_the_memory_gone_is_too_much():
    assert watched([8 * GB, 4.1 * GB, 8 * GB]) is None
    assert watched([8000 * MB, 3900 * MB]) == (
        2,
        "3,900 MB of memory are left, against 8,000 MB at the start of the trial, the limit being 50% of that",
    )


def test_memory_that_would_last_less_than_the_limit_ends_it_before_half_is_gone():
    assert watched(falling(8000 * MB, 320 * MB)) == (
        7,
        "memory goes at 320 MB a second: the 6,080 MB that are left would last 19 s, the limit being 20 s",
    )


def test_a_slow_fall_goes_on_until_it_is_near_the_end_or_at_half():
    fall = falling(8000 * MB, 100 * MB, 70)
    number, why = watched(fall)
    assert fall[number - 1] < 4000 * MB
    assert "at the start" in why
    number, why = watched(fall, guards=replace(Guards(), memory_ratio=0.0))
    assert fall[number - 1] == pytest.approx(2000 * MB, abs=101 * MB)
    assert "would last 19 s" in why


@pytest.mark.parametrize("steps", [1, 2])
def test_what_takes_its_memory_at_once_and_keeps_it_is_no_pace(steps):
    """Sorts and hash joins do; what is left is far more than what they took."""
    for at in range(1, 20):
        left = [8 * GB - 0.8 * GB * min(steps, max(0, second - at)) for second in range(30)]
        wobbling = [value + random.Random(at).gauss(0, 5 * MB) for value in left]
        assert watched(wobbling) is None


def test_buffers_that_are_touched_for_the_first_time_are_no_fall():
    taken = [min(3.5 * GB, 0.4 * GB * second) for second in range(30)]
    assert watched([8 * GB - amount for amount in taken], taken) is None
    assert watched([8 * GB - amount for amount in taken]) is not None


def test_noise_alone_never_ends_it():
    for seed in range(40):
        rng = random.Random(seed)
        assert watched([2 * GB + rng.gauss(0, 50 * MB) for _ in range(60)]) is None


def test_readings_from_before_the_last_seconds_do_not_count():
    assert watched(falling(8000 * MB, 310 * MB, 7), every_seconds=3.0) is None


def test_what_is_not_seen_or_has_no_limit_never_ends_it():
    clock = VirtualClock()
    for read in (memory_unseen, iter([MemoryReading(value, 0.0) for value in (8 * GB, 1.0)]).__next__):
        watch = MemoryWatch(read, clock, NO_GUARDS)
        watch.look()
        watch.look()


def test_a_change_begins_the_pace_anew_and_not_the_level():
    clock = VirtualClock()
    readings = iter([MemoryReading(left, 0.0) for left in [*falling(8000 * MB, 400 * MB, 5), 5900 * MB, 3900 * MB]])
    watch = MemoryWatch(readings.__next__, clock, Guards())
    for _ in range(5):
        watch.look()
        clock.sleep(1)
    watch.forget_pace()
    watch.look()
    with pytest.raises(MemoryRunsOut, match="at the start"):
        watch.look()


class LeakingBench(OfflineBench):
    """Under more than stock ``work_mem``, memory goes by 500 MB a second until it is given up."""

    def __init__(self, folder):
        super().__init__(folder)
        self.leaking_since = None
        self.laboratory = replace(self.laboratory, memory=self.memory)

    def memory(self):
        now = self.clock.monotonic_seconds()
        if self.target.settings(["work_mem"])["work_mem"].value == self.initial["work_mem"]:
            self.leaking_since = None
            return MemoryReading(8000 * MB, 0.0)
        self.leaking_since = self.leaking_since if self.leaking_since is not None else now
        return MemoryReading(8000 * MB - 500 * MB * (now - self.leaking_since), 0.0)


@pytest.mark.parametrize("block_seconds", [5.0, 60.0])
def test_a_candidate_that_leaks_is_put_back_within_seconds(tmp_path, block_seconds):
    with LeakingBench(tmp_path) as bench:
        bench.only("work_mem")
        leaking = bench.initial.replaced({"work_mem": 65536})
        plan = TrialPlan(block_seconds=block_seconds)
        trial = bench.laboratory.hold(bench.initial, Proposal(leaking, "user", "to see"), plan)
        assert trial.verdict.outcome is Outcome.ABORTED
        assert "memory goes at 500 MB a second" in trial.verdict.reason
        assert bench.leaking_since is not None
        assert bench.clock.monotonic_seconds() - bench.leaking_since <= 6
        assert bench.in_force() == bench.initial
        assert not bench.journal.state.unfinished
