"""The soak runner, on a virtual clock and a server that goes away."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from ml_postgres_optimization.errors import ServerUnreachable
from ml_postgres_optimization.interfaces.commands.extended_test import client_lines
from ml_postgres_optimization.soak.criteria import Criteria
from ml_postgres_optimization.soak.report import soak_json
from ml_postgres_optimization.soak.runner import MAXIMUM_OUTAGE_SECONDS, SoakPlan, SoakResult, run_soak
from ml_postgres_optimization.telemetry import (
    ActivitySample,
    LatencySample,
    Recorder,
    SampleBatch,
    Snapshot,
    VirtualClock,
    Window,
)
from ml_postgres_optimization.workload import LoadCounters


class FlakyServer:
    """Answers, except between `down_from` and `down_until`."""

    def __init__(self, clock: VirtualClock, down_from: float = 1e9, down_until: float = 1e9) -> None:
        self._clock, self._down = clock, (down_from, down_until)

    def _answer(self) -> None:
        if self._down[0] <= self._clock.monotonic_seconds() < self._down[1]:
            raise ServerUnreachable("The server is away.", "Wait.")

    def snapshot(self) -> Snapshot:
        self._answer()
        now = self._clock.monotonic_seconds()
        return Snapshot(self._clock.now(), now, {"database.commits_total": 100.0 * now})

    def activity(self) -> ActivitySample:
        self._answer()
        return ActivitySample({"CPU": 2}, 4, 0, 0, 0.1)


class Load:
    """Ten operations a second; each takes `seconds` and one in `fail_each` fails."""

    def __init__(self, clock: VirtualClock, seconds: float = 0.002, fail_each: int = 10**9, skipped: int = 0) -> None:
        self._clock, self._seconds, self._fail_each, self._skipped = clock, seconds, fail_each, skipped
        self.produced = 0
        self._until = 0.0

    def samples(self) -> Sequence[SampleBatch]:
        now = self._clock.monotonic_seconds()
        due = int((now - self._until) * 10 + 1e-9)
        self._until = now
        samples = []
        for number in range(self.produced, self.produced + due):
            failed = (number + 1) % self._fail_each == 0
            samples.append(LatencySample("read", now - self._seconds, now, now, "40001" if failed else None))
        self.produced += due
        return [SampleBatch.of(samples, skipped_total=self._skipped)] if samples else []


class HangingLoad:
    """Ten operations a second come due; from `hangs_at` on none ends, and two are at the server until the stop."""

    def __init__(self, clock: VirtualClock, hangs_at: float, died: int = 0, cpu_ratio: float = 0.1) -> None:
        self._clock, self._hangs_at, self._died, self._cpu_ratio = clock, hangs_at, died, cpu_ratio
        self._due = self._ended = 0
        self._stopped_at = math.inf

    @property
    def is_stopped(self) -> bool:
        return self._stopped_at < math.inf

    @property
    def counters(self) -> LoadCounters:
        return LoadCounters(due_total=self._due, died_total=self._died)

    def cpu_ratio_since(self, monotonic_seconds: float) -> float:
        assert monotonic_seconds <= self._clock.monotonic_seconds()
        return self._cpu_ratio

    def stop(self) -> None:
        self._stopped_at = self._clock.monotonic_seconds()
        self._clock.sleep(5.0)

    def samples(self) -> Sequence[SampleBatch]:
        now = self._clock.monotonic_seconds()
        due = round(min(now, self._stopped_at) * 10) - self._due
        ended = round(min(now, self._hangs_at) * 10) - self._ended
        self._due, self._ended = self._due + due, self._ended + ended
        samples = [LatencySample("read", now - 0.001, now, now)] * ended
        skipped = 0
        if self.is_stopped and self._due > self._ended:
            samples += [LatencySample("read", self._hangs_at, self._hangs_at, now, "57014")] * 2
            skipped, self._ended = self._due - self._ended - 2, self._due
        return [replace(SampleBatch.of(samples, skipped_total=skipped), due_total=due)]


def soak(
    clock: VirtualClock, server: FlakyServer, load: Load | HangingLoad, seconds: float = 35.0
) -> tuple[SoakResult, list[Window]]:
    windows: list[Window] = []
    recorder = Recorder(server, clock, samples=load.samples)
    result = run_soak(
        recorder,
        SoakPlan(seconds, window_seconds=10.0),
        configuration_id="stock",
        clock=clock,
        on_window=lambda window, _share: windows.append(window),
        load=load if isinstance(load, HangingLoad) else None,
    )
    return result, windows


def test_windows_cover_the_whole_duration_and_the_last_one_is_shorter():
    clock = VirtualClock()
    result, windows = soak(clock, FlakyServer(clock), Load(clock))
    assert [round(window.duration_seconds) for window in windows] == [10, 10, 10, 5]
    assert result.met
    assert result.whole is not None
    assert result.whole.operations_total == 350
    assert result.whole.rates["database.commits_per_second"] == pytest.approx(100.0)


def test_a_slow_or_failing_run_does_not_meet_its_criteria():
    clock = VirtualClock()
    result, _ = soak(clock, FlakyServer(clock), Load(clock, seconds=0.006, fail_each=100))
    assert [(criterion.name, criterion.met) for criterion in result.criteria] == [
        ("success ratio", False),
        ("mean response", False),
    ]
    assert not result.met
    assert result.whole is not None
    assert result.whole.errors == {"40001": 3}


def test_what_was_skipped_did_not_succeed():
    clock = VirtualClock()
    result, _ = soak(clock, FlakyServer(clock), Load(clock, skipped=5))
    assert result.criteria[0].found < 0.75


def test_an_outage_loses_its_window_but_not_its_operations():
    clock = VirtualClock()
    load = Load(clock)
    result, windows = soak(clock, FlakyServer(clock, down_from=12.5, down_until=18.0), load)
    assert result.lost_windows_total == 1
    assert result.whole is not None
    assert result.whole.operations_total == load.produced
    assert sum(window.duration_seconds for window in windows) < 35.0, "a lost window is never filled in"


def test_what_is_unanswered_at_the_end_did_not_succeed():
    clock = VirtualClock()
    load = HangingLoad(clock, hangs_at=12.0)
    result, windows = soak(clock, FlakyServer(clock), load, seconds=24.0)
    assert load.is_stopped
    assert result.whole is not None
    assert result.whole.due_total == result.whole.operations_total + result.whole.skipped_total == 240
    assert result.whole.skipped_total == 118
    assert result.whole.errors == {"57014": 2}
    assert result.criteria[0].found == pytest.approx(0.5)
    assert not result.met
    assert result.windows_total == len(windows) == 3, "how the load ends is no window of its own"
    document = soak_json(result)
    assert (document["whole"]["due_total"], document["whole"]["skipped_total"]) == (240, 118)


def test_what_is_unanswered_counts_after_an_outage_that_lasts_to_the_end():
    clock = VirtualClock()
    result, windows = soak(clock, FlakyServer(clock, down_from=15.0, down_until=27.0), HangingLoad(clock, 15.0), 24.0)
    assert (result.windows_total, result.lost_windows_total) == (1, 1) == (len(windows), 1)
    assert result.whole is not None
    # it came due until the load was stopped, at the end of the outage
    assert result.whole.due_total == result.whole.operations_total + result.whole.skipped_total >= 240
    assert result.whole.operations_total == 152
    assert not result.met


def test_what_is_unanswered_counts_when_the_server_is_away_at_the_end():
    clock = VirtualClock()
    load = HangingLoad(clock, hangs_at=12.0)
    result, _ = soak(clock, FlakyServer(clock, down_from=24.5), load, seconds=24.0)
    assert result.whole is not None
    assert result.whole.skipped_total == 118
    assert result.whole.unseen["server"] == "The server is away."
    assert not result.met


def test_what_is_unanswered_counts_after_an_interruption():
    clock = VirtualClock()
    load = HangingLoad(clock, hangs_at=12.0)

    class Interrupted(FlakyServer):
        def activity(self) -> ActivitySample:
            if clock.monotonic_seconds() == 16.0:
                raise KeyboardInterrupt
            return super().activity()

    result, _ = soak(clock, Interrupted(clock), load, seconds=100.0)
    assert result.interrupted
    assert load.is_stopped
    assert result.whole is not None
    assert result.whole.due_total == 160
    assert result.whole.skipped_total == 38
    assert result.whole.duration_seconds == 21.0, "the open window is closed when the load has ended"


def test_a_soak_says_whether_its_clients_were_fit_to_measure():
    clock = VirtualClock()
    result, _ = soak(clock, FlakyServer(clock), HangingLoad(clock, hangs_at=100.0))
    assert result.met
    assert client_lines(result) == ["Client processes: 0 died, the busiest used 10% of a core."]
    result, _ = soak(clock, FlakyServer(clock), HangingLoad(clock, hangs_at=100.0, died=2, cpu_ratio=0.93))
    document = soak_json(result)
    assert (document["clients_died_total"], document["client_cpu_ratio"]) == (2, 0.93)
    assert client_lines(result)[1:] == [f"Warning: {doubt}" for doubt in document["doubts"]]
    died, busy = document["doubts"]
    assert "2" in died
    assert "93%" in busy


def test_a_server_that_stays_away_ends_the_soak():
    clock = VirtualClock()
    with pytest.raises(ServerUnreachable):
        soak(clock, FlakyServer(clock, down_from=12.5, down_until=1e9), Load(clock), seconds=1000.0)
    assert clock.monotonic_seconds() < 12.5 + MAXIMUM_OUTAGE_SECONDS + 20.0


def test_a_run_without_operations_meets_nothing():
    clock = VirtualClock()
    result = run_soak(
        Recorder(FlakyServer(clock), clock),
        SoakPlan(10.0, criteria=Criteria()),
        configuration_id="stock",
        clock=clock,
        on_window=lambda _window, _share: None,
    )
    assert not result.met
    assert not any(criterion.met for criterion in result.criteria)


def test_an_interruption_keeps_what_was_measured():
    clock = VirtualClock()
    load = Load(clock)

    def stop_after_two(_window: Window, share: float) -> None:
        if share > 0.5:
            raise KeyboardInterrupt

    result = run_soak(
        Recorder(FlakyServer(clock), clock, samples=load.samples),
        SoakPlan(35.0),
        configuration_id="stock",
        clock=clock,
        on_window=stop_after_two,
    )
    assert result.interrupted
    assert result.windows_total == 2
    document = soak_json(result)
    assert document["interrupted"] is True
    assert document["whole"]["response"]["operations_total"] == 200
    assert document["whole"]["response"]["p99_9_seconds"] == pytest.approx(0.002, rel=0.005)
