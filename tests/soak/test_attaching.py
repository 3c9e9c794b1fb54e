"""A run that is seen and stopped from elsewhere, by its journal alone."""

import io
import os
import subprocess
import sys
from contextlib import contextmanager

import pytest
from simulated_run import SimulatedRun

from ml_postgres_optimization.errors import StateError, UsageError
from ml_postgres_optimization.interfaces.cli.console import ConsoleReporter
from ml_postgres_optimization.interfaces.commands.soaking.attaching import attach_run, stop_run
from ml_postgres_optimization.interfaces.home import Home
from ml_postgres_optimization.interfaces.reporter import Silence
from ml_postgres_optimization.interfaces.settings import load_settings
from ml_postgres_optimization.soak.journal import (
    FILE,
    Begun,
    ClockMark,
    Ending,
    FollowedRun,
    Left,
    Measured,
    RunDescription,
    RunJournal,
    Totals,
    read_run,
)
from ml_postgres_optimization.soak.reporting.live import LiveFigures
from ml_postgres_optimization.telemetry import VirtualClock

SIMULATED = SimulatedRun(hours=0.1, interval_seconds=10.0, per_second=20.0)
PATIENT = {"success_ratio": 0.9, "mean_seconds": 1.0, "drift": {"metrics": []}}
STRICT = {"success_ratio": 0.9, "mean_seconds": 1e-6, "drift": {"metrics": []}}


class Watching(Silence):
    """Remembers what it is shown."""

    def __init__(self):
        self.said, self.earlier, self.shown = [], None, []

    def say(self, text):
        self.said.append(text)

    @contextmanager
    def watching(self, run, earlier=(), so_far=None):
        self.so_far = so_far
        self.earlier = [interval.number for interval in earlier]
        yield lambda interval: self.shown.append(interval.number)


class Runner(VirtualClock):
    """Writes one more interval whenever whoever is attached waits, and leaves the run in its own way."""

    def __init__(self, journal, ending):
        super().__init__()
        self.journal, self.ending, self.intervals = journal, ending, SIMULATED.intervals()
        self.described_bytes = (journal.directory / FILE).stat().st_size
        journal.append(Begun(1, SIMULATED.at(0)))
        self.is_there = True

    def write(self, count=1):
        for _ in range(count):
            interval = next(self.intervals)
            self.journal.append(Measured(interval, Totals(), ClockMark()))
        return interval.number

    def sleep(self, seconds):
        assert self.is_there, "nobody is at the run, and it is waited for"
        if self.write() == 35:
            self.leave()

    def leave(self):
        if self.ending:
            self.journal.append(Left(self.ending, self.now(), "It ended."))
        self.journal.close()
        self.is_there = False


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path, tmp_path / "logs")


@pytest.fixture
def runner(home):
    begun = []

    def begin(ending=Ending.FINISHED, criteria=PATIENT):
        plan = SIMULATED.description
        description = RunDescription(
            *(plan.run, "1", "db", "here", "17", plan.started_at, plan.planned_seconds, plan.interval_seconds, 1),
            load={"criteria": criteria},
        )
        begun.append(Runner(RunJournal(home.runs_of("1") / plan.run, description), ending))
        return begun[-1]

    yield begin
    for one in begun:
        if one.is_there:
            one.journal.close()


@pytest.mark.parametrize(
    ("ending", "criteria", "code", "status"),
    [
        (Ending.FINISHED, PATIENT, 0, "finished"),
        (Ending.FINISHED, STRICT, 1, "finished"),
        pytest.param(Ending.STOPPED, PATIENT, 1, "stopped", marks=pytest.mark.long),
        (None, PATIENT, 1, "killed"),
    ],
)
def test_a_run_is_followed_to_its_end_and_judged_by_its_own_criteria(home, runner, ending, criteria, code, status):
    writer, seen = runner(ending, criteria), Watching()
    writer.write(12)
    told = attach_run(home, load_settings({}), seen, None, clock=writer)
    assert seen.earlier == [*range(12)]
    assert seen.shown == [*range(12, 36)], "each once, and none left out"
    assert (told.exit_code, told.document["status"]) == (code, status)
    assert any("--resume" in line for line in told.lines) == (status != "finished")
    assert not home.logs.exists(), "whoever looks writes nothing"
    again = attach_run(home, load_settings({}), Watching(), SIMULATED.description.run[:8])
    assert (again.exit_code, again.document) == (told.exit_code, told.document)
    chosen = load_settings({"maximum_mean_milliseconds": "0.001"})
    assert attach_run(home, chosen, Watching(), None).exit_code == 1


def test_whoever_leaves_leaves_the_run_going(home, runner):
    writer = runner()

    class Impatient(VirtualClock):
        def sleep(self, seconds):
            raise KeyboardInterrupt

    told = attach_run(home, load_settings({}), Watching(), None, clock=Impatient())
    assert told.exit_code == 0 and "goes on" in told.lines[0]
    assert told.document["status"] == "running"
    assert writer.write() == 0


def test_a_journal_that_grows_is_read_once_wherever_a_look_falls(home, runner, tmp_path):
    writer = runner(Ending.STOPPED)
    writer.write(6)
    writer.leave()
    whole = (writer.journal.directory / FILE).read_bytes()
    growing = tmp_path / writer.journal.directory.name
    growing.mkdir()
    (growing / FILE).write_bytes(whole[: writer.described_bytes])
    followed, found = FollowedRun(growing), []
    for length in range(writer.described_bytes, len(whole) + 97, 97):
        (growing / FILE).write_bytes(whole[:length])
        found += followed.news()
    assert found == [*read_run(writer.journal.directory).intervals]
    assert len(found) == 6


def test_a_long_run_is_shown_from_its_last_snapshots_as_if_all_had_been_read(home):
    simulated = SimulatedRun(hours=0.4, interval_seconds=10.0, per_second=5.0, failed_ratio=0.02)
    plan = simulated.description
    description = RunDescription(
        *(plan.run, "1", "db", "here", "17", plan.started_at, plan.planned_seconds, plan.interval_seconds, 1)
    )
    totals, folder = Totals(), home.runs_of("1") / plan.run
    with RunJournal(folder, description) as journal:
        for interval in simulated.intervals():
            if interval.number in (0, 100):  # the second after a kill
                journal.append(Begun(1 + journal.state.epoch, simulated.at(interval.number), interval.number))
            if interval.number not in (97, 98, 99):
                totals = totals.after(interval.window, 0)
                journal.append(Measured(interval, totals, ClockMark()))
    whole, recent = FollowedRun(folder), FollowedRun(folder, is_recent=True)
    all_of_it, last = [*whole.news()], [*recent.news()]
    assert last == all_of_it[60:], "two snapshots are kept, one every 60 intervals"
    assert [interval.state.name for interval in last[36:41]] == [
        *("MEASURED", "LOST", "CLIENT_DOWN", "CLIENT_DOWN", "MEASURED")
    ]
    figures, briefly = LiveFigures(plan), LiveFigures.after(plan, recent.so_far)
    expected = [figures.add(interval) for interval in all_of_it][-1]
    found = [briefly.add(interval) for interval in last][-1]
    assert (found.success_ratio, found.failed_total) == (expected.success_ratio, expected.failed_total)
    assert found.failed_total > 0
    assert found.response == expected.response
    assert found.trace == pytest.approx(expected.trace, nan_ok=True)


def test_only_the_process_that_has_a_run_is_stopped(home, runner):
    with pytest.raises(UsageError, match="No run is running"):
        stop_run(home, None)
    writer = runner()
    writer.write()
    # the number that a runner in another container has is a stranger's here
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        (writer.journal.directory / "journal.lock").write_text(str(stranger.pid))
        with pytest.raises(StateError, match=f"not seen from here.*process {stranger.pid}"):
            stop_run(home, None)
        assert stranger.poll() is None
    finally:
        stranger.communicate(b"\n")
    writer.leave()
    with pytest.raises(UsageError, match="is finished"):
        stop_run(home, writer.journal.directory.name)


def test_a_terminal_that_is_gone_stops_no_preparation():
    class Gone(io.StringIO):
        is_gone = False

        def isatty(self):
            return True

        def write(self, text):
            if self.is_gone:
                raise OSError(5, os.strerror(5))
            return super().write(text)

    stream = Gone()
    reporter = ConsoleReporter(stream)
    reporter.progress("Tables", 0.1)
    stream.is_gone = True
    reporter.progress("Tables", 0.2)
    reporter.progress("Rows", 0.1)
    with reporter.watching(SIMULATED.description) as show:
        for interval in SIMULATED.intervals():
            show(interval)
    reporter.close()
