"""Three days in seconds: the soak's own code on a virtual clock and a simulated server, with all that may happen."""

import errno
from datetime import timedelta

import pytest

from ml_postgres_optimization.errors import ServerUnreachable
from ml_postgres_optimization.soak.figures.fold import fold
from ml_postgres_optimization.soak.figures.outline import RunOutline
from ml_postgres_optimization.soak.interval import EventKind, IntervalState
from ml_postgres_optimization.soak.journal import Ending, Measured, RunDescription, RunJournal, read_run, recover
from ml_postgres_optimization.soak.judging.limits import Limits
from ml_postgres_optimization.soak.judging.verdict import judge
from ml_postgres_optimization.soak.runner import run_soak
from ml_postgres_optimization.soak.running import Course, Timeline, nobody_watches, wait_for_turn
from ml_postgres_optimization.target.simulated.soaked import Drift, SoakedTarget
from ml_postgres_optimization.target.simulated.target import SimulatedTarget
from ml_postgres_optimization.telemetry import Recorder, VirtualClock
from ml_postgres_optimization.workload.shapes import DailyCycle

HOURS = 3600.0
STEP = 50.0


class Killed(BaseException):
    """What no code of ours catches: the process is gone."""


def kill_after(number):
    """Return what kills the runner once an interval is written."""

    def kill(interval, _share):
        if interval.number == number:
            raise Killed

    return kill


class DeadBeforeItsFirst(RunJournal):
    """The journal of a runner that is killed before it has written an interval."""

    def append(self, entry):
        if isinstance(entry, Measured):
            raise Killed
        super().append(entry)


class Run:
    """A run of simulated load whose runner can be killed and followed by another."""

    def __init__(self, folder, *, seconds, interval, rate=2.0, outages=(), drift=0.0):
        self.clock = VirtualClock()
        self.folder = folder / "run"
        self.description = RunDescription("run", "1", "db", "here", "15", self.clock.now(), seconds, interval, 1)
        target = SimulatedTarget(self.clock, seed=1, noise=Drift(drift), rate_per_second=rate, step_seconds=STEP)
        self.target = SoakedTarget(target, self.clock, rate, shape=DailyCycle(), outages=outages)
        self.is_new = True

    def go(self, on_interval=lambda _interval, _share: None, boot="boot", journal=None):
        description, self.is_new = (self.description if self.is_new else None), False
        with journal or RunJournal(self.folder, description) as journal:
            timeline = Timeline(self.clock, self.description, journal.state.mark, boot=boot)
            wait_for_turn(journal.state, timeline, self.clock)
            self.target.samples()  # what came before was another runner's
            recorder = Recorder(self.target, self.clock, samples=self.target.samples, activity_seconds=STEP)
            course = Course(journal, recorder, timeline, self.clock, watch=nobody_watches("stock"))
            return run_soak(journal, course, on_interval=on_interval)

    def go_until(self, number):
        """Go on until an interval is written; then kill the runner."""

        with pytest.raises(Killed):
            self.go(kill_after(number))

    @property
    def intervals(self):
        return [*read_run(self.folder).intervals]


def test_three_days_with_kills_an_outage_sleep_and_drift(tmp_path):
    run = Run(tmp_path, seconds=72 * HOURS, interval=600.0, outages=[(30.01 * HOURS, 30.49 * HOURS)], drift=0.01)
    for number in (10, 12, 100, 200):
        run.go_until(number)
        run.clock.sleep(50.0)
    run.clock.sleep(2000.0)

    def happen(interval, _share):
        if interval.number == 300:
            run.clock.suspend(1500.0)
        if interval.number == 350:
            run.clock.step(7200.0)

    result = run.go(happen)
    found = run.intervals
    states = [interval.state for interval in found]
    assert [interval.number for interval in found] == [*range(432)]
    assert states.count(IntervalState.LOST) == 4, "one for each kill"
    assert [n for n, state in enumerate(states) if state is IntervalState.SERVER_DOWN] == [180, 181, 182]
    assert states[202:205] == [*[IntervalState.CLIENT_DOWN] * 2, IntervalState.DEGRADED]
    events = {event.text: interval.number for interval in found for event in interval.events}
    assert events["The machine slept for 1,500 s."] == 303
    assert states[301:304] == [*[IntervalState.CLIENT_DOWN] * 2, IntervalState.DEGRADED]
    assert events["The wall clock was set forward by 7,200 s."] == 351
    seen = [interval.window for interval in found if interval.window]
    assert result.whole.operations_total == sum(window.operations_total for window in seen), "none is counted twice"
    assert result.windows_total + result.lost_windows_total == len(seen)
    at_noon, at_night = found[72].window, found[2].window
    assert at_noon.throughput_per_second > 3 * at_night.throughput_per_second, "a daily cycle"
    assert found[-2].window.response.mean_seconds > 1.5 * found[5].window.response.mean_seconds, "e^0.72 is 2"
    figures = fold(RunOutline("run", found[0].started_at, 600.0, 72 * HOURS), found)
    mean = judge(figures, Limits()).drifts["mean"]
    assert mean.is_worse and 0.5 < mean.change_ratio < 1.6, "the daily cycle taken out"
    assert {gap.state for gap in figures.gaps} == {*IntervalState} - {IntervalState.MEASURED}


def test_kept_intervals_are_those_of_a_run_that_nobody_disturbed(tmp_path):
    calm = Run(tmp_path / "calm", seconds=3000.0, interval=100.0)
    calm.go()
    killed = Run(tmp_path / "killed", seconds=3000.0, interval=100.0)
    for number in (3, 9, 20):
        killed.go_until(number)
    killed.go()
    kept = {interval.number: interval.window for interval in killed.intervals if interval.window}
    assert sorted({*range(30)} - {*kept}) == [4, 10, 21]
    for interval in calm.intervals:
        if interval.number in kept and kept[interval.number].operations_total != interval.window.operations_total:
            # the simulated load is due by fractions, and what comes after a kill begins with another fraction
            assert abs(kept[interval.number].operations_total - interval.window.operations_total) <= 1


def test_a_reboot_goes_by_the_wall_clock(tmp_path):
    run = Run(tmp_path, seconds=1000.0, interval=100.0)
    run.go_until(2)
    run.clock.sleep(150.0)
    run.go(boot="another boot")
    states = [interval.state for interval in run.intervals]
    assert states[3:6] == [IntervalState.LOST, IntervalState.DEGRADED, IntervalState.MEASURED]


def test_a_disk_that_fills_and_clears_loses_nothing(tmp_path):
    run = Run(tmp_path, seconds=1000.0, interval=100.0)
    run.is_new = False

    class FullDisk(RunJournal):
        def append(self, entry):
            if 250.0 < run.clock.monotonic_seconds() < 650.0:
                raise OSError(errno.ENOSPC, "No space left on device")
            super().append(entry)

    run.go(journal=FullDisk(run.folder, run.description))
    found = run.intervals
    assert [interval.state for interval in found] == [IntervalState.MEASURED] * 10
    texts = [event for interval in found for event in interval.events if event.kind is EventKind.DISK]
    assert "No space left" in texts[0].text
    assert texts[1].until - texts[1].at == timedelta(seconds=400)
    assert RunJournal(run.folder).state.ending is Ending.FINISHED


@pytest.mark.parametrize("where", ["in an interval", "after one is written", "to the run's end", "by the server"])
def test_a_runner_that_was_held_up_was_there(tmp_path, monkeypatch, where):
    run = Run(tmp_path, seconds=2000.0, interval=100.0)
    until = 3000.0 if where == "to the run's end" else 870.0
    look = run.target.activity

    def slow_look():
        if where != "after one is written" and 420.0 < run.clock.monotonic_seconds() < 520.0:
            run.clock.sleep(until - run.clock.monotonic_seconds())
            if where == "by the server":
                raise ServerUnreachable("It says nothing.", "Wait.")
        return look()

    def stall(interval, _share):
        if where == "after one is written" and interval.number == 3:
            run.clock.sleep(until - run.clock.monotonic_seconds())

    monkeypatch.setattr(run.target, "activity", slow_look)
    result, (first, last) = run.go(stall), (4, {"in": 7, "after": 8, "to": 19, "by": 7}[where.split()[0]])
    found = run.intervals
    held = IntervalState.SERVER_DOWN if where == "by the server" else IntervalState.DEGRADED
    states = [interval.state for interval in found]
    expected = [IntervalState.MEASURED] * (4 if last == 19 else 15) + [held] * (11 if last == 19 else 0)
    assert states[:first] + states[9:] == expected
    assert {*states[first : last + 1]} == {held}
    assert states[8] is IntervalState.DEGRADED, "seen from when the runner came back, or taken with the others"
    at = 8 if where == "after one is written" else 4
    assert {one.counted_in for one in found if first <= one.number <= last and not one.window} == {at}
    assert [one.number for one in found if "held up" in str(one.events)] == [at]
    assert sum(one.seconds for one in found[:19]) == 1900.0 - (70.0 if last == 7 else 0.0), "no time counts twice"
    figures = fold(RunOutline("run", found[0].started_at, 100.0, 2000.0), found)
    assert figures.totals.presumed_total == 0, "what came due is counted in one of them"
    assert figures.totals.counted_total == result.whole.due_total
    state = recover(run.folder).state
    assert (state.last_number, state.taken_until) == (19, 19)


def test_what_a_killed_runner_had_in_memory_only_is_lost_and_no_more(tmp_path):
    run = Run(tmp_path, seconds=3000.0, interval=100.0)
    run.is_new = False

    class FullDisk(RunJournal):
        def append(self, entry):
            if 250.0 < run.clock.monotonic_seconds() < 1000.0:
                raise OSError(errno.ENOSPC, "No space left on device")
            super().append(entry)

    with pytest.raises(Killed):
        run.go(kill_after(6), journal=FullDisk(run.folder, run.description))
    run.clock.sleep(500.0)
    run.go_until(15)
    run.clock.sleep(900.0)
    with pytest.raises(Killed):  # at once: it has written nothing but that it began
        run.go(journal=DeadBeforeItsFirst(run.folder))
    run.clock.sleep(10.0)
    run.go()
    found = run.intervals
    lost = [interval.number for interval in found if interval.state is IntervalState.LOST]
    assert lost == [*range(2, 8), 16, 25], "two to six were in memory, and the others under way"
    away = [interval.number for interval in found if interval.state is IntervalState.CLIENT_DOWN]
    assert away == [*range(8, 12), *range(17, 25)]
    killed = "The runner had been killed; another took the run up."
    events = [event.text for interval in found for event in interval.events if event.kind is EventKind.RUNNER]
    assert events == [f"{killed} What it could not write, from interval 2 to 7, is lost.", killed, killed]
