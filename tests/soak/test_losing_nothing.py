"""The soak runner counts what the load has done, whatever comes between: late ends, Ctrl-C, a full disk."""

import errno
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest

from ml_postgres_optimization.errors import CircuitOpen, IntegrityViolated, TargetError
from ml_postgres_optimization.interfaces.commands.extended_test import _unwritable
from ml_postgres_optimization.interfaces.workbench.observing import Observer
from ml_postgres_optimization.safety.deferral import deferred_signals
from ml_postgres_optimization.soak.figures.fold import fold
from ml_postgres_optimization.soak.figures.outline import RunOutline
from ml_postgres_optimization.soak.interval import Interval, IntervalState
from ml_postgres_optimization.soak.journal import (
    Ending,
    RunDescription,
    RunJournal,
    RunState,
    journal_file,
    read_run,
    recover,
)
from ml_postgres_optimization.soak.judging.limits import Limits
from ml_postgres_optimization.soak.judging.outcome import Outcome
from ml_postgres_optimization.soak.judging.verdict import Result, Verdict, judge
from ml_postgres_optimization.soak.runner import run_soak
from ml_postgres_optimization.soak.running import Course, Store, Timeline, Watch
from ml_postgres_optimization.telemetry import (
    ActivitySample,
    LatencySample,
    Recorder,
    SampleBatch,
    Snapshot,
    VirtualClock,
)
from ml_postgres_optimization.workload import LoadCounters


class Server:
    """Always there."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock

    def snapshot(self) -> Snapshot:
        return Snapshot(self._clock.now(), self._clock.monotonic_seconds(), {})

    def activity(self) -> ActivitySample:
        return ActivitySample({}, 4, 0, 0, 0.1)


class WritingLoad:
    """Ten writes a second, all acknowledged: what it has done is known. Four are under way, and end at its stop."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock, self._until, self._under_way = clock, clock.monotonic_seconds(), 4
        self.done, self._is_paused, self._is_stopped = 0, False, False
        self.rests = 0
        self.counters = LoadCounters()

    def cpu_ratio_since(self, _monotonic_seconds: float) -> float:
        return 0.1

    def pause(self) -> None:
        self.rests += 1
        self._is_paused = True

    def resume(self) -> None:
        self._is_paused, self._until = False, self._clock.monotonic_seconds()

    def stop(self) -> None:
        self._is_stopped = True

    def samples(self) -> Sequence[SampleBatch]:
        now = self._clock.monotonic_seconds()
        ended = 0 if self._is_paused or self._is_stopped else round((now - self._until) * 10)
        if not self._is_paused:
            self._until = now
        if self._is_stopped or self._is_paused:
            ended, self._under_way = ended + self._under_way, 0
        self.done += ended
        return [SampleBatch.of([LatencySample("write", now - 0.001, now, now)] * ended)] if ended else []


@dataclass
class Run:
    """A run of 10-second intervals on a virtual clock, and what its watch is told."""

    folder: object
    seconds: float = 35.0
    clock: VirtualClock = field(default_factory=VirtualClock)
    subscribers: list = field(default_factory=list)
    unsettled: list = field(default_factory=list)
    most_waiting: int = 360
    on_interval: object = lambda _interval, _share: None
    review: object = lambda _state, _totals: None
    settled: list = field(default_factory=list)

    def settle(self, totals) -> str | None:
        self.settled.append(totals)
        return self.unsettled.pop() if self.unsettled else None

    def go(self, late: float = 0.0) -> list[Interval]:
        clock = self.clock
        description = RunDescription("run", "1", "db", "here", "17", clock.now(), self.seconds, 10.0, 1)
        clock.sleep(late)
        self.load = WritingLoad(clock)
        with RunJournal(self.folder / "run", description) as journal:
            recorder = Recorder(
                Server(clock),
                clock,
                samples=self.load.samples,
                subscribers=self.subscribers,
                unbroken=deferred_signals,
            )
            watch = Watch(lambda: "stock", review=self.review, settle=self.settle)
            course = Course(journal, recorder, Timeline(clock, description), clock, watch=watch, load=self.load)
            course._store = Store(journal, self.most_waiting)
            self.course = course
            self.result = run_soak(journal, course, on_interval=self.on_interval)
            self.totals = course.totals
        return [*read_run(self.folder / "run").intervals]

    @property
    def state(self) -> RunState:
        return recover(self.folder / "run").state


def written(intervals: Sequence[Interval]) -> int:
    return sum(interval.window.operations_total for interval in intervals if interval.window)


def verdict_on(intervals: Sequence[Interval], state: RunState) -> Verdict:
    outline = RunOutline("run", intervals[0].started_at, 10.0, 35.0, is_settled=state.is_settled)
    return judge(fold(outline, intervals), Limits())


def test_a_load_that_begins_after_the_end_is_counted(tmp_path):
    run = Run(tmp_path)
    assert [interval.state for interval in run.go(late=1000.0)] == [IntervalState.CLIENT_DOWN] * 4
    assert run.settled == [run.totals]
    assert run.totals.written_total == run.load.done == 4


@pytest.mark.parametrize("way", ["the machine sleeps", "the last interval is overtaken"])
def test_what_is_left_at_the_end_is_in_the_last_interval(tmp_path, way):
    run = Run(tmp_path, seconds=30.5)

    def pass_by(_state, _totals):
        at = run.clock.boottime_seconds()
        if way == "the machine sleeps" and at == 10.0:
            run.clock.suspend(900.0)
        elif way != "the machine sleeps" and at == 30.0:
            run.clock.sleep(10.5)

    run.review = pass_by
    intervals = run.go()
    assert intervals[-1].number == 3, "the last one is written"
    assert intervals[-1].state is IntervalState.DEGRADED
    assert written(intervals) == run.load.done == run.totals.written_total == run.settled[0].written_total
    assert run.state.totals == run.totals


def test_a_subscriber_that_fails_costs_nothing_but_its_own(tmp_path):
    seen = []

    def fail(_window):
        raise RuntimeError("no room")

    run = Run(tmp_path, subscribers=[fail, seen.append])
    intervals = run.go()
    assert written(intervals) == run.load.done == 354
    assert len(seen) == 4, "the others have it"
    assert [interval.state for interval in intervals] == [IntervalState.MEASURED] * 4
    assert [event.text for interval in intervals for event in interval.events] == [
        "A window was not kept elsewhere: RuntimeError: no room"
    ]


@pytest.mark.parametrize("at", ["subscriber", "samples", "review"])
def test_ctrl_c_waits_until_what_was_taken_is_kept(tmp_path, monkeypatch, at):
    run, take = Run(tmp_path), WritingLoad.samples

    def interrupt(*_given):
        if run.clock.monotonic_seconds() == 20.0:
            signal.raise_signal(signal.SIGINT)

    def interrupted(load):
        batches = take(load)
        interrupt()
        return batches

    if at == "subscriber":
        run.subscribers = [interrupt]
    elif at == "review":
        run.review = interrupt
    else:
        monkeypatch.setattr(WritingLoad, "samples", interrupted)
    intervals = run.go()
    assert run.result.interrupted
    assert run.state.ending is Ending.STOPPED
    assert written(intervals) == run.load.done == run.totals.written_total == 204
    assert run.state.totals == run.totals, "the next runner knows it"


def test_a_rest_for_want_of_disk_loses_nothing(tmp_path, monkeypatch):
    run, write = Run(tmp_path, seconds=95.0, most_waiting=2), os.fdatasync

    def full(file):
        if 15.0 < run.clock.monotonic_seconds() < 55.0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(file)

    monkeypatch.setattr(os, "fdatasync", full)
    intervals = run.go()
    assert run.load.rests == 1
    assert written(intervals) == run.load.done == run.totals.written_total
    states = [interval.state for interval in intervals]
    assert states[:4] == [IntervalState.MEASURED] * 3 + [IntervalState.DEGRADED]
    assert intervals[3].window.operations_total == 4, "what was under way when the rest began"
    assert states[4] is IntervalState.CLIENT_DOWN
    assert states[-1] is IntervalState.MEASURED


def fill_the_disk(run: Run, monkeypatch, until: float = 1e9) -> None:
    write = os.fdatasync

    def full(file):
        if 15.0 < run.clock.monotonic_seconds() < until and os.fstat(file).st_size > 64:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(file)

    monkeypatch.setattr(os, "fdatasync", full)


def test_whoever_leaves_waits_for_room_and_says_what_found_none(tmp_path, monkeypatch):
    run = Run(tmp_path)
    fill_the_disk(run, monkeypatch, until=45.0)
    intervals = run.go()
    assert written(intervals) == run.load.done == 354
    assert (run.state.ending, run.state.last_number) == (Ending.FINISHED, 3)
    assert 45.0 <= run.clock.monotonic_seconds() < 46.0

    (tmp_path / "never").mkdir()
    run = Run(tmp_path / "never")
    fill_the_disk(run, monkeypatch)
    with pytest.raises(OSError, match="No space left"):
        run.go()
    assert run.clock.monotonic_seconds() < 60.0, "not for ever"
    assert [*run.course.unwritten] == [1, 2, 3]
    told = _unwritable("run", OSError(errno.ENOSPC, "No space left on device"), run.course.unwritten).what
    assert told.endswith("No space left on device. Intervals 1 to 3 were in memory only, and are lost.")
    assert (run.state.last_number, run.state.lost_until) == (0, 3), "the next runner can say it in the journal"


def test_a_disk_with_room_for_an_end_and_for_no_interval_ends_no_run(tmp_path, monkeypatch):
    run, whole = Run(tmp_path), journal_file.write_all

    def nearly_full(file, data):
        if run.clock.monotonic_seconds() > 15.0 and len(data) > 256:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        whole(file, data)

    monkeypatch.setattr(journal_file, "write_all", nearly_full)
    with pytest.raises(OSError, match="No space left"):
        run.go()
    assert [*run.course.unwritten] == [1, 2, 3]
    assert (run.state.ending, run.state.last_number, run.state.lost_until) == (None, 0, 3)


def test_a_violation_counts_for_more_than_a_full_disk(tmp_path, monkeypatch):
    run = Run(tmp_path)
    fill_the_disk(run, monkeypatch)

    def violate(_state, _totals):
        if run.clock.monotonic_seconds() > 25.0:
            raise IntegrityViolated("One is missing.", "Keep it.")

    run.review = violate
    with pytest.raises(IntegrityViolated) as raised:
        run.go()
    assert "journal could not be written: No space left" in raised.value.__notes__[0]


def test_a_ledger_that_cannot_be_looked_at_is_asked_again_and_no_pass_without_it(tmp_path):
    run = Run(tmp_path, unsettled=["The server is away."] * 3)
    intervals = run.go()
    assert (len(run.settled), run.state.is_settled) == (4, True)
    verdict = verdict_on(intervals, run.state)
    assert verdict.findings[0].outcome is Outcome.PASSED
    assert verdict.result is Result.PASSED

    (tmp_path / "away").mkdir()
    run = Run(tmp_path / "away", unsettled=["The server is away."] * 1000)
    intervals = run.go()
    assert run.clock.monotonic_seconds() < 35.0 + 310.0, "not for ever"
    assert (run.state.ending, run.state.is_settled) == (Ending.FINISHED, False)
    verdict = verdict_on(intervals, run.state)
    assert (verdict.findings[0].name, verdict.findings[0].outcome) == ("integrity", Outcome.UNDECIDED)
    assert verdict.result is Result.UNDECIDED
    assert replace(verdict, findings=verdict.findings[1:]).result is Result.PASSED


def test_texts_that_a_server_does_not_tell_are_asked_for_again():
    told, asked, kept = [CircuitOpen("Too many.", "Wait."), {(7, 1, 1): "SELECT 1"}], [], []

    class Target:
        def statement_texts(self, keys):
            asked.append(keys)
            if isinstance(told[0], TargetError):
                raise told.pop(0)
            return told[0]

    observer = object.__new__(Observer)
    observer._session = SimpleNamespace(target=Target(), log=SimpleNamespace(warning=lambda *_, **__: None))
    observer._texts_known = set()
    observer.keep = kept.append
    window = SimpleNamespace(statements={(7, 1, 1): None})
    for _ in range(3):
        observer._learn_texts(window)
    assert asked == [{(7, 1, 1)}] * 2
    assert len(kept) == 1
