"""Samples, snapshots, windows, the recorder and the store."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from ml_postgres_optimization.target.simulated import SimulatedTarget
from ml_postgres_optimization.telemetry import (
    ActivitySample,
    Histogram,
    LatencySample,
    MemoryStore,
    Recorder,
    SampleBatch,
    Snapshot,
    StatementCounters,
    SystemClock,
    VirtualClock,
    Window,
    between,
    merge,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
KEY = (1, 10, 5)


def snapshot(seconds: float, values=None, statements=None, unseen=None) -> Snapshot:
    return Snapshot(START + timedelta(seconds=seconds), seconds, values or {}, statements or {}, unseen or {})


def window_between(before: Snapshot, after: Snapshot, **more) -> Window:
    return between(before, after, configuration_id="stock", **more)


def counters(calls: int, seconds: float = 0.0) -> StatementCounters:
    return StatementCounters(calls, seconds, calls, 0, 0, 0, 0.0)


def sample(kind: str, intended: float, start: float, end: float, sqlstate: str | None = None) -> LatencySample:
    return LatencySample(kind, intended, start, end, sqlstate)


def test_a_counter_becomes_a_rate_and_a_gauge_keeps_its_last_value():
    window = window_between(
        snapshot(0, {"database.commits_total": 100.0, "locks.waiting": 7.0}),
        snapshot(10, {"database.commits_total": 150.0, "locks.waiting": 2.0}),
    )
    assert window.rates == {"database.commits_per_second": 5.0}
    assert window.gauges == {"locks.waiting": 2.0}
    assert window.duration_seconds == 10


def test_a_counter_that_was_not_there_before_has_no_rate():
    window = window_between(snapshot(0), snapshot(10, {"wal.records_total": 5.0}))
    assert window.rates == {}


def test_a_reset_hides_the_rates_of_its_source_only():
    window = window_between(
        snapshot(0, {"wal.records_total": 9.0, "wal.syncs_total": 1.0, "database.commits_total": 1.0}),
        snapshot(10, {"wal.records_total": 3.0, "wal.syncs_total": 2.0, "database.commits_total": 2.0}),
    )
    assert window.rates == {"database.commits_per_second": 0.1}
    assert "reset" in window.unseen["wal"]
    assert "database" not in window.unseen


def test_a_step_of_the_wall_clock_does_not_change_the_length_of_a_window():
    before = Snapshot(START, 100.0, {"a.b_total": 0.0})
    after = Snapshot(START - timedelta(hours=1), 110.0, {"a.b_total": 10.0})
    window = window_between(before, after)
    assert window.duration_seconds == 10
    assert window.rates == {"a.b_per_second": 1.0}


def test_the_growth_of_a_statement_is_the_difference_of_its_counters():
    idle = (2, 10, 5)
    window = window_between(
        snapshot(0, statements={KEY: counters(10, 1.0), idle: counters(3)}),
        snapshot(10, statements={KEY: counters(15, 1.5), idle: counters(3)}),
    )
    assert window.statements == {KEY: counters(5, 0.5)}


@pytest.mark.parametrize("now", [counters(4, 0.1), counters(15, 0.2)], ids=["fewer calls", "more calls, less time"])
def test_a_statement_that_went_backwards_counts_from_its_new_beginning(now):
    window = window_between(snapshot(0, statements={KEY: counters(10, 1.0)}), snapshot(10, statements={KEY: now}))
    assert window.statements == {KEY: now}


def test_a_statement_that_is_new_counts_whole():
    window = window_between(snapshot(0), snapshot(10, statements={KEY: counters(4)}))
    assert window.statements == {KEY: counters(4)}


def test_what_was_counted_before_statements_could_be_seen_is_no_growth():
    blind = snapshot(0, unseen={"statements": "canceling statement due to statement timeout"})
    assert window_between(blind, snapshot(10, statements={KEY: counters(1_000_000)})).statements == {}


def test_operations_are_timed_from_their_intended_start_and_failures_are_counted_by_sqlstate():
    batch = SampleBatch.of(
        [
            sample("read", 0.0, 0.5, 0.6),
            sample("read", 1.0, 1.0, 1.2, "40001"),
            sample("write", 2.0, 2.0, 2.4, "40001"),
            sample("write", 3.0, 3.0, 3.1, "53300"),
        ],
        skipped_total=3,
    )
    window = window_between(snapshot(0), snapshot(10), batches=[batch, batch])
    assert window.operations_total == 8
    assert window.operations["read"].response.max_seconds == pytest.approx(0.6)
    assert window.operations["read"].service.max_seconds == pytest.approx(0.2)
    assert window.errors == {"40001": 4, "53300": 2}
    assert window.failed_total == 6
    assert window.error_ratio == 0.75
    assert window.skipped_total == 6
    assert window.throughput_per_second == pytest.approx(0.2)


def test_a_kind_without_an_operation_is_absent():
    batch = SampleBatch(
        kinds=("read", "write"),
        kind_index=np.zeros(1, dtype=np.uint8),
        intended_start_seconds=np.zeros(1),
        start_seconds=np.zeros(1),
        end_seconds=np.ones(1),
        sqlstate=np.zeros(1, dtype="S5"),
    )
    assert set(window_between(snapshot(0), snapshot(10), batches=[batch]).operations) == {"read"}


def test_waits_are_average_active_sessions():
    window = window_between(
        snapshot(0),
        snapshot(10),
        activity=[ActivitySample({"CPU": 3, "Lock": 1}, 10, 1, 0, 2.0), ActivitySample({"CPU": 1}, 20, 0, 1, 7.0)],
    )
    assert window.waits == {"CPU": 2.0, "Lock": 0.5}
    assert window.gauges == {
        "activity.connections": 15.0,
        "activity.blocked_sessions": 0.5,
        "activity.idle_in_transaction_sessions": 0.5,
        "activity.longest_transaction_seconds": 7.0,
    }


def test_without_activity_nothing_is_said_of_sessions():
    window = window_between(snapshot(0), snapshot(10))
    assert not window.waits
    assert not window.gauges


def test_an_empty_window_has_no_errors_and_no_mean():
    window = window_between(snapshot(0), snapshot(0))
    assert window.error_ratio == 0.0
    assert window.throughput_per_second == 0.0
    assert np.isnan(window.response.mean_seconds)
    assert np.isnan(window.response.quantile_seconds(0.5))


def test_a_rate_that_one_of_two_windows_does_not_know_stays_unknown():
    known = Window(START, START + timedelta(seconds=10), "stock", rates={"wal.records_per_second": 4.0})
    reset = Window(START + timedelta(seconds=10), START + timedelta(seconds=20), "stock", unseen={"wal": "reset"})
    merged = merge(known, reset)
    assert merged.rates == {}
    assert merged.unseen == {"wal": "reset"}


def test_windows_of_two_configurations_are_not_merged():
    first = window_between(snapshot(0), snapshot(10))
    with pytest.raises(ValueError, match="two configurations"):
        merge(first, between(snapshot(10), snapshot(20), configuration_id="candidate"))


def test_a_batch_gives_back_the_samples_that_it_was_made_of():
    samples = [sample("read", 0.0, 0.1, 0.2), sample("write", 1.0, 1.0, 1.5, "40P01")]
    batch = SampleBatch.of(samples)
    assert len(batch) == 2
    assert list(batch.samples()) == samples
    assert samples[0].response_seconds == pytest.approx(0.2)
    assert samples[0].service_seconds == pytest.approx(0.1)


def test_the_memory_store_gives_windows_in_the_order_of_time_of_one_run():
    store = MemoryStore()
    later = Window(START + timedelta(hours=1), START + timedelta(hours=2), "a", labels={"run": "x"})
    earlier = Window(START, START + timedelta(hours=1), "a", labels={"run": "y"})
    store.add(later)
    store.add(earlier)
    assert store.windows() == [earlier, later]
    assert store.windows(run="x") == [later]
    assert store.windows(since=START + timedelta(hours=1)) == [later]


def test_a_virtual_clock_moves_only_when_told_to():
    clock = VirtualClock(START)
    clock.sleep(1.5)
    clock.sleep(-3)
    assert clock.monotonic_seconds() == 1.5
    assert clock.now() == START + timedelta(seconds=1.5)


def test_the_system_clock_is_aware_and_does_not_wait_for_the_past():
    clock = SystemClock()
    before = clock.monotonic_seconds()
    clock.sleep(-1)
    assert clock.monotonic_seconds() >= before
    assert clock.now().tzinfo is UTC


class TestRecorder:
    @pytest.fixture
    def clock(self) -> VirtualClock:
        return VirtualClock(START)

    @pytest.fixture
    def target(self, clock) -> SimulatedTarget:
        return SimulatedTarget(clock, seed=7, rate_per_second=123.4)

    @pytest.fixture
    def seen(self) -> list[Window]:
        return []

    @pytest.fixture
    def recorder(self, target, clock, seen) -> Recorder:
        return Recorder(target, clock, samples=target.samples, subscribers=[seen.append])

    def test_nothing_falls_between_two_windows(self, recorder, clock, target, seen):
        for duration in (10.0, 3.3, 0.7, 10.0):
            recorder.record(duration, configuration_id="stock")
            clock.sleep(0.9)
        recorded_seconds = clock.monotonic_seconds() - 0.9
        assert sum(window.operations_total for window in seen) == int(123.4 * recorded_seconds + 1e-6)
        assert [window.started_at for window in seen[1:]] == [window.ended_at for window in seen[:-1]]
        commits = sum(window.rates["database.commits_per_second"] * window.duration_seconds for window in seen)
        assert round(commits) == sum(window.operations_total for window in seen)

    def test_a_window_carries_what_its_maker_knows(self, recorder, seen):
        window = recorder.record(10, configuration_id="abc", labels={"run": "r", "phase": "train"})
        assert seen == [window]
        assert window.configuration_id == "abc"
        assert window.labels == {"run": "r", "phase": "train"}
        assert window.duration_seconds == 10
        assert set(window.waits) <= {"CPU", "LWLock"}
        assert window.gauges["activity.connections"] == 8
        assert window.unseen == {"io": "a simulated server has none"}

    def test_what_is_discarded_belongs_to_nobody(self, recorder, clock):
        recorder.record(5, configuration_id="stock")
        clock.sleep(100)
        recorder.discard()
        window = recorder.record(5, configuration_id="stock")
        assert window.duration_seconds == 5
        assert window.operations_total == pytest.approx(5 * 123.4, abs=1)

    def test_a_window_begins_when_it_is_told_to(self, recorder, clock):
        recorder.begin()
        clock.sleep(4)
        window = recorder.record(10, configuration_id="stock")
        assert window.duration_seconds == 10
        assert window.operations_total == 1234

    def test_a_trace_is_one_window_for_subscribers_and_nothing_falls_between_its_steps(self, recorder, seen):
        trace = recorder.trace(5, 10, configuration_id="stock", labels={"phase": "trial"})
        assert len(trace) == 10
        assert {round(window.duration_seconds, 6) for window in trace} == {0.5}
        assert [window.started_at for window in trace[1:]] == [window.ended_at for window in trace[:-1]]
        [whole] = seen
        assert (whole.duration_seconds, whole.labels) == (5, {"phase": "trial"})
        assert whole.operations_total == sum(window.operations_total for window in trace) == 617

    def test_snapshots_that_take_their_time_do_not_make_a_trace_longer(self, target, clock):
        honest = target.snapshot

        def slow():
            clock.sleep(0.05)
            return honest()

        target.snapshot = slow
        trace = Recorder(target, clock, samples=target.samples).trace(5, 10, configuration_id="stock")
        assert sum(window.duration_seconds for window in trace) == pytest.approx(5.05)

    def test_subscribers_are_called_in_their_order(self, target, clock):
        called = []
        subscribers = [lambda _: called.append("first"), lambda _: called.append("second")]
        Recorder(target, clock, subscribers=subscribers).record(1, configuration_id="stock")
        assert called == ["first", "second"]

    def test_the_operations_of_a_lost_window_are_counted_in_the_next(self, target, clock, seen):
        class Failing(SimulatedTarget):
            broken = False

            def snapshot(self):
                if self.broken:
                    raise ConnectionError
                return super().snapshot()

        target = Failing(clock, seed=1, rate_per_second=100)
        recorder = Recorder(target, clock, samples=target.samples, subscribers=[seen.append])
        recorder.begin()
        target.broken = True
        with pytest.raises(ConnectionError):
            recorder.record(10, configuration_id="stock")
        target.broken = False
        window = recorder.record(10, configuration_id="stock")
        assert seen == [window]
        assert window.duration_seconds == 10
        assert window.operations_total == 2000


class LateSource:
    """Operations that end at given times and are reported at full multiples of 0.2 s, by two clients."""

    def __init__(self, clock: VirtualClock, ends: list[float], silent_from: float = math.inf) -> None:
        self._clock, self._ends, self._silent_from = clock, ends, silent_from
        self._reported_until = -0.1

    def __call__(self) -> list[SampleBatch]:
        now = min(self._clock.monotonic_seconds(), self._silent_from)
        # at the start there is a report of nothing, which says that others will follow
        until, since = math.floor(now / 0.2 + 1e-9) * 0.2, self._reported_until
        if until <= since:
            return []
        self._reported_until = until
        samples = [sample("read", end - 0.01, end - 0.01, end) for end in self._ends if since < end <= until]
        due = round(until * 10) - round(max(0.0, since) * 10)
        return [
            replace(
                SampleBatch.of(samples),
                due_total=due,
                since_seconds=since,
                until_seconds=until,
                complete_until_seconds=until,
            )
        ]


class TestLateReports:
    """What ended in a window is counted in it, though it is reported later."""

    @pytest.fixture
    def clock(self) -> VirtualClock:
        return VirtualClock(START)

    def recorder(self, clock, *arguments, **more) -> Recorder:
        target = SimulatedTarget(clock, seed=1)
        return Recorder(target, clock, samples=LateSource(clock, *arguments, **more))

    def test_an_operation_is_counted_in_the_window_in_which_it_ended(self, clock):
        recorder = self.recorder(clock, [0.05, 1.65, 1.75, 3.35, 3.45])
        windows = [recorder.record(1.7, configuration_id="stock") for _ in range(2)]
        assert [window.operations_total for window in windows] == [2, 2]
        assert [window.duration_seconds for window in windows] == pytest.approx([1.7, 1.7])
        assert [window.due_total for window in windows] == [17, 17]
        clock.sleep(0.4)
        rest = recorder.finish(configuration_id="stock")
        assert rest is not None
        assert rest.operations_total == 1

    def test_a_report_is_waited_for_not_for_ever(self, clock):
        recorder = self.recorder(clock, [0.05, 1.65], silent_from=1.5)
        recorder.record(1.7, configuration_id="stock")
        assert clock.monotonic_seconds() == pytest.approx(2.7, abs=0.05)

    def test_what_is_reported_too_late_is_counted_in_the_next_window(self, clock):
        source, late = LateSource(clock, [1.0]), True
        silence = [replace(SampleBatch.of([]), complete_until_seconds=0.0)]
        recorder = Recorder(SimulatedTarget(clock, seed=1), clock, samples=lambda: silence if late else source())
        assert recorder.record(1.7, configuration_id="stock").operations_total == 0
        late = False
        assert recorder.record(1.7, configuration_id="stock").operations_total == 1

    def test_what_ended_before_a_switch_is_not_counted_after_it_though_reported_later(self, clock):
        recorder = self.recorder(clock, [1.72, 1.85, 1.95])
        recorder.record(1.7, configuration_id="stock")
        clock.sleep(1.9 - clock.monotonic_seconds())
        recorder.discard()
        window = recorder.record(1.1, configuration_id="stock")
        assert window.operations_total == 1
        assert window.due_total == 11

    def test_a_source_that_is_never_behind_is_not_waited_for(self, clock):
        target = SimulatedTarget(clock, seed=1)
        Recorder(target, clock, samples=target.samples).record(1.7, configuration_id="stock")
        Recorder(target, clock).record(1.7, configuration_id="stock")
        assert clock.monotonic_seconds() == pytest.approx(3.4)

    def test_nothing_left_is_no_window(self, clock):
        recorder = self.recorder(clock, [0.5])
        recorder.record(1.0, configuration_id="stock")
        recorder.discard()
        assert recorder.finish(configuration_id="stock") is None


def test_a_histogram_that_makes_no_sense_is_refused():
    good = Histogram.of([0.001, 0.002]).to_json()
    for broken in (
        good | {"counts": [1]},
        good | {"buckets": [-1, 0]},
        good | {"buckets": [0, 99_999]},
        good | {"counts": [-1, 2]},
    ):
        with pytest.raises(ValueError, match="histogram"):
            Histogram.from_json(broken)


def test_a_histogram_is_equal_to_a_histogram_only():
    assert Histogram.empty() != 0
    assert Histogram.empty() != Histogram.of([1.0])
