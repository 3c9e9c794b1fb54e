"""The extended test on a terminal: a live screen; a plain line every minute where there is none."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from types import TracebackType

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ml_postgres_optimization.interfaces.report.soak.words import duration
from ml_postgres_optimization.soak.figures.outline import RunOutline
from ml_postgres_optimization.soak.interval import Interval, IntervalState
from ml_postgres_optimization.soak.journal import Totals
from ml_postgres_optimization.soak.judging.quantity import Dimension, shown, shown_seconds
from ml_postgres_optimization.soak.reporting.live import LiveFigures, Standing
from ml_postgres_optimization.target.postgres.connection.settings import on_one_line

LINE_EVERY_SECONDS = 60.0
_BARS = "▁▂▃▄▅▆▇█"
_STYLES = {
    IntervalState.MEASURED: "green",
    IntervalState.DEGRADED: "yellow",
    IntervalState.SERVER_DOWN: "bold red",
    IntervalState.CLIENT_DOWN: "yellow",
    IntervalState.LOST: "yellow",
}


class SoakScreen:
    """Show a run's intervals as they finish; use as a context manager.

    Parameters
    ----------
    description : RunOutline
    console : rich.console.Console
        Where a terminal is, a live screen stands on it until the end; elsewhere lines are said.
    say : callable
        Says a plain line.
    earlier : iterable of Interval, optional
        Counted first, and shown as one.
    so_far : Totals, optional
        What the load had done before those.
    """

    def __init__(
        self,
        description: RunOutline,
        console: Console,
        say: Callable[[str], None],
        earlier: Iterable[Interval] = (),
        *,
        so_far: Totals | None = None,
    ) -> None:
        self._figures = LiveFigures.after(description, so_far or Totals())
        self._earlier = earlier
        self._say = say
        self._said_at = -math.inf
        self._state: IntervalState | None = None
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None

    def __enter__(self) -> SoakScreen:
        standing = None
        for interval in self._earlier:
            standing = self._figures.add(interval)
        try:
            if self._live:
                self._live.start()
            if standing:
                self._show(standing)
        except OSError:
            self._take_away()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._take_away()

    def add(self, interval: Interval) -> None:
        """Show how the run stands after one more interval; a closed terminal stops no run."""
        standing = self._figures.add(interval)
        try:
            self._show(standing)
        except OSError:
            self._take_away()  # nobody looks any more; `status` and the report still tell

    def _take_away(self) -> None:
        live, self._live = self._live, None
        if live:
            with suppress(OSError):
                live.stop()

    def _show(self, standing: Standing) -> None:
        if self._live:
            self._live.update(screen(standing), refresh=True)
        elif (
            standing.elapsed_seconds - self._said_at >= LINE_EVERY_SECONDS
            or standing.state is not self._state
            or not standing.left_seconds
        ):
            self._said_at = standing.elapsed_seconds
            self._say(line(standing))
        self._state = standing.state


def line(standing: Standing) -> str:
    """Return how a run stands in one line.

    It says the time that is over and left, the state, the last minute's rate and percentiles, and the success so far.
    """
    over = duration(standing.elapsed_seconds)
    parts = [f"{over} of {duration(standing.description.planned_seconds)}, {duration(standing.left_seconds)} left"]
    if standing.state is not IntervalState.MEASURED:
        parts.append(standing.state.value.upper())
    if standing.recent_seconds:
        parts.append(f"{standing.succeeded_per_second:,.0f}/s of {standing.offered_per_second:,.0f}/s")
        parts.append(", ".join(f"{name} {figure}" for name, figure in _percentiles(standing)))
    if standing.errors:
        parts.append("errors " + ", ".join(f"{on_one_line(name)} {count}" for name, count in standing.errors.items()))
    parts.append(f"succeeded so far {shown(standing.success_ratio, Dimension.RATIO)}")
    return "; ".join(parts)


def screen(standing: Standing) -> RenderableType:
    """Return how a run stands as something that Rich can show, at any width."""
    parts = [_progress(standing), _figures(standing), _trace(standing.trace), *_events(standing)]
    title = Text(f"Extended test {on_one_line(standing.description.run)}", style="bold")
    return Panel(Group(*parts), title=title, title_align="left", box=box.ROUNDED, padding=(0, 1))


def _progress(standing: Standing) -> RenderableType:
    grid = Table.grid(expand=True, padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1)
    grid.add_column(justify="right", no_wrap=True)
    planned = standing.description.planned_seconds
    state = Text(standing.state.value, style=_STYLES[standing.state])
    bar = ProgressBar(total=planned, completed=min(planned, standing.elapsed_seconds))
    grid.add_row(state, bar, Text(f"{duration(standing.left_seconds)} left of {duration(planned)}"))
    return grid


def _figures(standing: Standing) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    if standing.recent_seconds:
        rate = f"{standing.succeeded_per_second:,.0f}/s succeeded of {standing.offered_per_second:,.0f}/s offered"
    else:
        rate = "nothing was measured in the last minute"
    grid.add_row("rate", Text(rate))
    grid.add_row("response", Text("  ".join(f"{name} {figure}" for name, figure in _percentiles(standing)) or "–"))
    errors = "  ".join(f"{on_one_line(name)} {count:,}" for name, count in standing.errors.items())
    grid.add_row("errors", Text(errors or "none in the last minute", style="red" if errors else ""))
    ratio = shown(standing.success_ratio, Dimension.RATIO)
    grid.add_row("so far", Text(f"{ratio} succeeded, {standing.failed_total:,} did not"))
    if standing.epoch > 1:
        grid.add_row("resumed", Text(f"{standing.epoch - 1} times"))
    return grid


def _percentiles(standing: Standing) -> list[tuple[str, str]]:
    names = {"mean": "mean", "p50": "p50", "p95": "p95", "p99": "p99", "p99_9": "p99.9"}
    found = {title: standing.response.get(f"response.{name}") for name, title in names.items()}
    return [(title, shown_seconds(seconds)) for title, seconds in found.items() if seconds is not None]


def _trace(values: Sequence[float]) -> RenderableType:
    """Return p99 as a row of bars, by logarithm; a gap is a dot."""
    finite = [value for value in values if math.isfinite(value) and value > 0]
    if not finite:
        return Text("")
    low, high = math.log(min(finite)), math.log(max(finite))
    bars = "".join(_bar(value, low, high) for value in values)
    ends = f"{shown_seconds(min(finite))} to {shown_seconds(max(finite))}"
    return Text.assemble(("p99 ", "dim"), (bars, "cyan"), (f"  {ends}", "dim"), overflow="crop", no_wrap=True)


def _bar(value: float, low: float, high: float) -> str:
    if not (math.isfinite(value) and value > 0):
        return "·"
    share = (math.log(value) - low) / (high - low) if high > low else 0.0
    return _BARS[min(len(_BARS) - 1, int(share * len(_BARS)))]


def _events(standing: Standing) -> list[RenderableType]:
    if not standing.events:
        return []
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    for event in standing.events:
        grid.add_row(f"{event.at:%H:%M:%S} {event.kind.value}", Text(on_one_line(event.text)))
    return [grid]
