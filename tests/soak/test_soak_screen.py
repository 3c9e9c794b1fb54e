"""What somebody sees while the extended test runs: a live screen on a terminal, lines elsewhere."""

import io
from dataclasses import replace

import pytest
from rich.console import Console
from simulated_run import SimulatedRun, eventful

from ml_postgres_optimization.interfaces.cli.console import TerminalConsole
from ml_postgres_optimization.interfaces.cli.soak_screen import SoakScreen, line, screen
from ml_postgres_optimization.soak.interval import Event, EventKind, IntervalState
from ml_postgres_optimization.soak.reporting.live import LiveFigures
from ml_postgres_optimization.telemetry import Histogram

RUN = SimulatedRun(
    hours=0.2,
    interval_seconds=10,
    per_second=10,
    daily=0.0,
    failed_ratio=0.02,
    gaps={(0.05, 0.075): IntervalState.SERVER_DOWN},
)


def standings(run):
    figures = LiveFigures(run.description)
    return [figures.add(interval) for interval in run.intervals()]


def shown(standing, width=100):
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(screen(standing))
    return console.file.getvalue()


def test_the_last_minute_is_merged_and_the_whole_run_is_counted():
    intervals = list(RUN.intervals())
    last = standings(RUN)[-1]
    merged = sum((interval.window.response for interval in intervals[-6:]), Histogram.empty())
    assert last.response["response.p99"] == merged.quantile_seconds(0.99)
    assert last.recent_seconds == 60 and last.left_seconds == 0
    assert last.success_ratio < 0.9 and last.failed_total > 700


def test_a_screen_says_all_that_somebody_asks():
    text = shown(standings(replace(RUN, gaps={}))[30])
    for said in ("Extended test", "measured", "left of 12 min", "/s succeeded of", "p99.9", "40001", "so far"):
        assert said in text


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_screen_fits_any_width(width):
    text = shown(standings(eventful(hours=1, per_second=1))[-1], width)
    assert max(map(len, text.splitlines())) <= width


def test_an_outage_is_said_and_is_a_gap_in_the_trace():
    during = standings(RUN)[26]
    assert during.state is IntervalState.SERVER_DOWN
    text = shown(during)
    assert "server down" in text and "nothing was measured in the last minute" in text and "·" in text
    assert "SERVER DOWN" in line(during)


def test_lines_are_said_every_minute_and_when_the_state_changes():
    lines = []
    with SoakScreen(RUN.description, TerminalConsole(file=io.StringIO()), lines.append) as one:
        for interval in RUN.intervals():
            one.add(interval)
    assert [("SERVER DOWN" in said) for said in lines].index(True) == 3
    assert 12 <= len(lines) <= 16
    assert lines[-1].startswith("12 min of 12 min, 0 s left; ")
    assert "p99.9" in lines[0] and "succeeded so far" in lines[0]


def test_a_terminal_that_is_closed_stops_nothing():
    class Closed(io.StringIO):
        closed_now = False

        def write(self, text):
            if self.closed_now:
                raise BrokenPipeError
            return super().write(text)

    file = Closed()
    one = SoakScreen(RUN.description, TerminalConsole(file=file, force_terminal=True), lambda text: None)
    with one:
        intervals = RUN.intervals()
        one.add(next(intervals))
        assert "Extended test" in file.getvalue()
        file.closed_now = True
        for interval in intervals:
            one.add(interval)


def test_an_events_text_cannot_play_with_the_terminal():
    hostile = Event(EventKind.FAULT, "\x1b[2J[bold]x[/bold]\n\u202e", RUN.at(1))
    text = shown(standings(replace(RUN, events=(hostile,)))[2])
    assert "\x1b" not in text and "\u202e" not in text and "[bold]x[/bold]" in text
