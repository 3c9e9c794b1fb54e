"""The soak runner, on a virtual clock and a server that goes away."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from ml_postgres_optimization.errors import ServerUnreachable
from ml_postgres_optimization.interfaces.commands.extended_test import client_lines
from ml_postgres_optimization.soak.figures.fold import fold
from ml_postgres_optimization.soak.figures.outline import RunOutline
from ml_postgres_optimization.soak.interval import Interval, IntervalState
from ml_postgres_optimization.soak.journal import RunDescription, RunJournal, read_run
from ml_postgres_optimization.soak.judging.limits import Limits
from ml_postgres_optimization.soak.judging.outcome import Outcome
from ml_postgres_optimization.soak.judging.verdict import Verdict, judge
from ml_postgres_optimization.soak.runner import SoakResult, run_soak
from ml_postgres_optimization.soak.running import Course, Timeline, nobody_watches
from ml_postgres_optimization.telemetry import (
    ActivitySample,
    LatencySample,
    Recorder,
    SampleBatch,
    Snapshot,
    VirtualClock,
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

    def __init__(
        self,
        clock: VirtualClock,
        seconds: float = 0.002,
        fail_each: int = 10**9,
        skipped: int = 0,
        *,
        per_second: float = 10,
    ) -> None:
        self._per_second = per_second
        self._clock, self._seconds, self._fail_each, self._skipped = clock, seconds, fail_each, skipped
        self.produced = 0
        self._until = 0.0

    def samples(self) -> Sequence[SampleBatch]:
        now = self._clock.monotonic_seconds()
        due = int((now - self._until) * self._per_second + 1e-9)
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
        ended = max(0, round(min(now, self._hangs_at) * 10) - self._ended)
        self._due, self._ended = self._due + due, self._ended + ended
        samples = [LatencySample("read", now - 0.001, now, now)] * ended
        skipped = 0
        if self.is_stopped and self._due > self._ended:
            samples += [LatencySample("read", self._hangs_at, self._hangs_at, now, "57014")] * 2
            skipped, self._ended = self._due - self._ended - 2, self._due
        return [replace(SampleBatch.of(samples, skipped_total=skipped), due_total=due)]


def verdict_on(intervals: Sequence[Interval]) -> Verdict:
    outline = RunOutline("run", intervals[0].started_at, 10.0, 35.0)
    return judge(fold(outline, intervals), Limits())


def is_met(intervals: Sequence[Interval]) -> bool:
    return verdict_on(intervals).exit_code == 0


def success_ratio(intervals: Sequence[Interval]) -> float:
    return next(one.found_value for one in verdict_on(intervals).findings if one.name == "success")


@pytest.fixture
def soak(tmp_path):
    """Run a soak of 10-second intervals to its end, and return its result and its intervals."""

    def run(
        clock: VirtualClock,
        server: FlakyServer,
        load: Load | HangingLoad,
        seconds: float = 35.0,
        on_interval=lambda _interval, _share: None,
        resources=dict,
    ) -> tuple[SoakResult, list[Interval]]:
        at = clock.now()
        description = RunDescription("run", "1", "db", "here", "17", at, seconds, 10.0, 1, labels={"run": "run"})
        folder = tmp_path / "run"
        with RunJournal(folder, description) as journal:
            course = Course(
                journal,
                Recorder(server, clock, samples=load.samples),
                Timeline(clock, description),
                clock,
                watch=replace(nobody_watches("stock"), resources=resources),
                load=load if isinstance(load, HangingLoad) else None,
            )
            result = run_soak(journal, course, on_interval=on_interval)
        return result, [*read_run(folder).intervals]

    return run


def test_windows_cover_the_whole_duration_and_the_last_one_is_shorter(soak):
    clock = VirtualClock()
    result, windows = soak(clock, FlakyServer(clock), Load(clock))
    assert [round(interval.seconds) for interval in windows] == [10, 10, 10, 5]
    assert is_met(windows)
    assert result.whole is not None
    assert result.whole.operations_total == 350
    assert result.whole.rates["database.commits_per_second"] == pytest.approx(100.0)


def test_a_slow_or_failing_run_does_not_meet_its_criteria(soak):
    clock = VirtualClock()
    result, intervals = soak(clock, FlakyServer(clock), Load(clock, seconds=0.006, fail_each=100))
    failed = {one.name for one in verdict_on(intervals).findings if one.outcome is Outcome.FAILED}
    assert failed >= {"success", "mean"}
    assert not is_met(intervals)
    assert result.whole is not None
    assert result.whole.errors == {"40001": 3}


def test_what_was_skipped_did_not_succeed(soak):
    clock = VirtualClock()
    _, intervals = soak(clock, FlakyServer(clock), Load(clock, skipped=5))
    assert success_ratio(intervals) < 0.75


def test_the_operations_of_an_outage_count_in_its_own_interval(soak):
    clock = VirtualClock()
    load = Load(clock)
    result, intervals = soak(clock, FlakyServer(clock, down_from=12.5, down_until=18.0), load)
    assert [interval.state for interval in intervals][:3] == [
        IntervalState.MEASURED,
        IntervalState.SERVER_DOWN,
        IntervalState.MEASURED,
    ]
    assert (result.windows_total, result.lost_windows_total) == (3, 1)
    assert [interval.window.operations_total for interval in intervals] == [100, 100, 100, 50]
    assert result.whole is not None
    assert result.whole.operations_total == load.produced == 350
    assert "database.commits_per_second" not in intervals[1].window.rates, "what nobody saw is not filled in"
    away, back = (event for interval in intervals for event in interval.events)
    assert "away" in away.text
    assert (back.until - back.at).total_seconds() == pytest.approx(17.0), "seen at the next snapshot only"


def test_what_is_unanswered_at_the_end_did_not_succeed(soak):
    clock = VirtualClock()
    load = HangingLoad(clock, hangs_at=12.0)
    result, windows = soak(clock, FlakyServer(clock), load, seconds=24.0)
    assert load.is_stopped
    assert result.whole is not None
    assert result.whole.due_total == result.whole.operations_total + result.whole.skipped_total == 240
    assert result.whole.skipped_total == 118
    assert result.whole.errors == {"57014": 2}
    assert success_ratio(windows) == pytest.approx(0.5)
    assert not is_met(windows)
    assert result.windows_total == len(windows) == 3, "how the load ends is no window of its own"
    totals = fold(RunOutline("run", windows[0].started_at, 10.0, 24.0), windows).totals
    assert (totals.due_total, totals.skipped_total) == (240, 118)


def test_what_is_unanswered_counts_after_an_outage_that_lasts_to_the_end(soak):
    clock = VirtualClock()
    result, windows = soak(clock, FlakyServer(clock, down_from=15.0, down_until=27.0), HangingLoad(clock, 15.0), 24.0)
    assert (result.windows_total, result.lost_windows_total) == (1, 2)
    assert result.whole is not None
    # it came due until the load was stopped, at the end of the outage
    assert result.whole.due_total == result.whole.operations_total + result.whole.skipped_total >= 240
    assert result.whole.operations_total == 152
    assert not is_met(windows)


def test_what_is_unanswered_counts_when_the_server_is_away_at_the_end(soak):
    clock = VirtualClock()
    load = HangingLoad(clock, hangs_at=12.0)
    result, intervals = soak(clock, FlakyServer(clock, down_from=24.5), load, seconds=24.0)
    assert result.whole is not None
    assert result.whole.skipped_total == 118
    assert result.whole.unseen["server"] == "The server is away."
    assert not is_met(intervals)


def test_what_is_unanswered_counts_after_an_interruption(soak):
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


def test_a_soak_says_whether_its_clients_were_fit_to_measure(soak):
    clock = VirtualClock()
    result, intervals = soak(clock, FlakyServer(clock), HangingLoad(clock, hangs_at=100.0))
    assert is_met(intervals)
    assert client_lines(result) == ["Client processes: 0 died, the busiest used 10% of a core."]
    result, _ = soak(clock, FlakyServer(clock), HangingLoad(clock, hangs_at=100.0, died=2, cpu_ratio=0.93))
    assert (result.clients_died_total, result.client_cpu_ratio) == (2, 0.93)
    assert client_lines(result)[1:] == [f"Warning: {doubt}" for doubt in result.doubts]
    died, busy = result.doubts
    assert "2" in died
    assert "93%" in busy


def test_what_the_clients_use_is_looked_at_before_they_end(soak):
    clock = VirtualClock()
    load = HangingLoad(clock, hangs_at=100.0)
    _, intervals = soak(
        clock, FlakyServer(clock), load, resources=lambda: {"client.rss_bytes": 0.0 if load.is_stopped else 1e8}
    )
    assert [interval.resources["client.rss_bytes"] for interval in intervals] == [1e8] * 4


def test_a_server_that_stays_away_counts_to_the_end(soak):
    clock = VirtualClock()
    _result, intervals = soak(clock, FlakyServer(clock, down_from=12.5), HangingLoad(clock, hangs_at=12.5), 1000.0)
    assert clock.monotonic_seconds() == pytest.approx(1005.0), "the load takes five seconds to stop"
    assert [interval.state for interval in intervals].count(IntervalState.SERVER_DOWN) == 99
    assert success_ratio(intervals) < 0.02
    assert not is_met(intervals)


def test_a_run_without_operations_meets_nothing(soak):
    clock = VirtualClock()
    _, intervals = soak(clock, FlakyServer(clock), Load(clock, per_second=0))
    assert not is_met(intervals)
    assert not any(one.outcome is Outcome.PASSED for one in verdict_on(intervals).findings)


def test_an_interruption_keeps_what_was_measured(soak):
    clock = VirtualClock()

    class Interrupted(FlakyServer):
        def activity(self) -> ActivitySample:
            if clock.monotonic_seconds() == 26.0:
                raise KeyboardInterrupt
            return super().activity()

    result, intervals = soak(clock, Interrupted(clock), Load(clock))
    assert result.interrupted
    assert [interval.state for interval in intervals][1:] == [IntervalState.MEASURED, IntervalState.DEGRADED]
    response = fold(RunOutline("run", intervals[0].started_at, 10.0, 35.0), intervals).totals.response
    assert response.total == 260
    assert response.quantile_seconds(0.999) == pytest.approx(0.002, rel=0.005)
