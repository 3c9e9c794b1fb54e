"""The soak runner, on a virtual clock and a server that goes away."""

from collections.abc import Sequence

import pytest

from ml_postgres_optimization.errors import ServerUnreachable
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
            samples.append(LatencySample("read", now, now, now + self._seconds, "40001" if failed else None))
        self.produced += due
        return [SampleBatch.of(samples, skipped_total=self._skipped)] if samples else []


def soak(
    clock: VirtualClock, server: FlakyServer, load: Load, seconds: float = 35.0
) -> tuple[SoakResult, list[Window]]:
    windows: list[Window] = []
    recorder = Recorder(server, clock, samples=load.samples)
    result = run_soak(
        recorder,
        SoakPlan(seconds, window_seconds=10.0),
        configuration_id="stock",
        clock=clock,
        on_window=lambda window, _share: windows.append(window),
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
