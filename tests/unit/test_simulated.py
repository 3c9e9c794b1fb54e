"""The simulated server's response surface, noise and counters; its settings are in the conformance suite."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_postgres_optimization.target.simulated import (
    AutoregressiveNoise,
    SimulatedTarget,
    WhiteNoise,
    latency_seconds,
)
from ml_postgres_optimization.target.simulated.surface import BEST_LATENCY_SECONDS
from ml_postgres_optimization.telemetry import Recorder, VirtualClock

BEST = {
    "work_mem": 32 * 1024,
    "max_wal_size": 8 * 1024,
    "checkpoint_timeout": 900,
    "random_page_cost": 1.1,
    "effective_io_concurrency": 64,
    "autovacuum_vacuum_cost_limit": 2000,
    "jit": False,
}


class Silence:
    """No noise at all."""

    def after(self, level, seconds, random):
        return 0.0


def make(seed=1, **more) -> tuple[VirtualClock, SimulatedTarget]:
    clock = VirtualClock()
    return clock, SimulatedTarget(clock, seed=seed, **more)


class TestSurface:
    def test_the_best_without_a_restart_is_1_6_times_as_fast_as_stock(self):
        _, target = make()
        ratio = target.latency_seconds({}, 8) / target.latency_seconds(BEST, 8)
        assert ratio == pytest.approx(1.6, abs=0.01)

    def test_concurrency_goes_through_what_was_measured(self):
        assert latency_seconds({}, 95) / latency_seconds({}, 8) == pytest.approx(8.6 / 2.4)

    @pytest.mark.parametrize(("name", "value"), BEST.items())
    def test_every_knob_is_worse_off_its_best_value(self, name, value):
        for other in (not value,) if isinstance(value, bool) else (value / 3, value * 3):
            assert latency_seconds(BEST | {name: other}, 8) > latency_seconds(BEST, 8)

    def test_special_values_are_known(self):
        assert latency_seconds({"autovacuum_vacuum_cost_limit": -1}, 8) == latency_seconds(
            {"autovacuum_vacuum_cost_limit": 200}, 8
        )
        assert math.isfinite(latency_seconds({"effective_io_concurrency": 0}, 8))

    def test_more_memory_than_there_is_makes_it_swap(self):
        fits, swaps = {"work_mem": 128 * 1024}, {"work_mem": 512 * 1024}
        assert latency_seconds(swaps, 8) > 2.5 * latency_seconds(fits, 8)

    def test_other_knobs_do_nothing(self):
        assert (
            latency_seconds({"bgwriter_lru_maxpages": 5, "default_statistics_target": 999}, 8) == BEST_LATENCY_SECONDS
        )

    @given(
        st.fixed_dictionaries(
            {},
            optional={
                "work_mem": st.integers(64, 2**31 - 1),
                "max_wal_size": st.integers(2, 2**31 - 1),
                "checkpoint_timeout": st.integers(30, 86400),
                "random_page_cost": st.floats(0, 1e6),
                "effective_io_concurrency": st.integers(0, 1000),
                "autovacuum_vacuum_cost_limit": st.integers(-1, 10000),
                "shared_buffers": st.integers(16, 2**30 - 1),
                "jit": st.booleans(),
            },
        ),
        st.integers(1, 1000),
    )
    def test_nothing_beats_the_best(self, configuration, concurrency):
        assert latency_seconds(configuration, concurrency) >= BEST_LATENCY_SECONDS


class TestNoise:
    def levels(self, noise, seconds, count=20_000):
        random, level, levels = np.random.default_rng(3), 0.0, []
        for _ in range(count):
            level = noise.after(level, seconds, random)
            levels.append(level)
        return np.array(levels)

    @pytest.mark.parametrize("noise", [WhiteNoise(0.1), AutoregressiveNoise(0.1, 5.0)])
    def test_it_is_centred_and_as_wide_as_asked_for(self, noise):
        levels = self.levels(noise, 1.0)
        assert levels.mean() == pytest.approx(0, abs=0.01)
        assert levels.std() == pytest.approx(0.1, rel=0.1)

    def test_white_noise_does_not_remember(self):
        levels = self.levels(WhiteNoise(0.1), 1.0)
        assert np.corrcoef(levels[1:], levels[:-1])[0, 1] == pytest.approx(0, abs=0.03)

    @pytest.mark.parametrize("seconds", [0.5, 1.0, 5.0])
    def test_autoregressive_noise_remembers_for_its_time_whatever_the_step(self, seconds):
        levels = self.levels(AutoregressiveNoise(0.1, 5.0), seconds)
        assert np.corrcoef(levels[1:], levels[:-1])[0, 1] == pytest.approx(math.exp(-seconds / 5.0), abs=0.03)


class TestTarget:
    def test_the_same_seed_gives_the_same_run(self):
        runs = []
        for seed in (5, 5, 6):
            clock, target = make(seed=seed)
            runs.append(Recorder(target, clock, samples=target.samples).record(5, configuration_id="stock").response)
        assert runs[0] == runs[1]
        assert runs[0] != runs[2]

    def test_operations_take_what_the_surface_says(self):
        clock, target = make(noise=Silence(), rate_per_second=2000)
        recorder = Recorder(target, clock, samples=target.samples)
        stock = recorder.record(20, configuration_id="stock").response.mean_seconds
        for name, value in BEST.items():
            target.write(name, value)
        target.reload()
        recorder.discard()
        best = recorder.record(20, configuration_id="best").response.mean_seconds
        assert stock == pytest.approx(target.latency_seconds({}, 8) * 1.6, rel=0.02)
        assert stock / best == pytest.approx(1.6, rel=0.02)

    def test_a_change_in_the_middle_counts_from_there_on(self):
        clock, target = make(noise=Silence(), rate_per_second=1000)
        target.write("work_mem", 32 * 1024)
        clock.sleep(10)
        target.reload()
        spilled = target.snapshot().values["database.temp_bytes_total"]
        clock.sleep(10)
        assert spilled > 0
        assert target.snapshot().values["database.temp_bytes_total"] == spilled

    def test_concurrency_in_the_middle_counts_from_there_on(self):
        clock, target = make(noise=Silence(), rate_per_second=1000)
        clock.sleep(10)
        target.concurrency = 95
        clock.sleep(10)
        means = [float(np.mean(batch.end_seconds - batch.start_seconds)) for batch in target.samples()]
        assert np.mean(means[10:]) / np.mean(means[:10]) == pytest.approx(8.6 / 2.4, rel=0.05)
        assert target.concurrency == 95

    def test_operations_end_within_their_time_and_once_only(self):
        clock, target = make(rate_per_second=77.7)
        clock.sleep(3.5)
        (*_, last) = batches = target.samples()
        ends = np.concatenate([batch.end_seconds for batch in batches])
        assert len(ends) == int(77.7 * 3.5)
        assert (ends.min(), ends.max()) >= (0, 0)
        assert ends.max() <= 3.5
        assert last.kinds == ("read", "write")
        assert target.samples() == []

    def test_at_most_an_hour_of_operations_is_kept(self):
        clock, target = make(rate_per_second=1)
        clock.sleep(2 * 3600)
        assert sum(len(batch) for batch in target.samples()) == 3600
        assert target.snapshot().values["database.commits_total"] == 7200

    def test_time_that_does_not_pass_changes_nothing(self):
        clock, target = make()
        clock.sleep(2)
        assert target.snapshot() == target.snapshot()

    def test_sessions_at_work_follow_little_s_law(self):
        clock, target = make(noise=Silence(), rate_per_second=4000, concurrency=8)
        clock.sleep(1)
        active = 4000 * target.latency_seconds({}, 8)
        activity = target.activity()
        assert sum(activity.active_sessions_by_wait.values()) == min(8, round(active))
        assert activity.active_sessions_by_wait["CPU"] == 2
        assert activity.connections == 8
