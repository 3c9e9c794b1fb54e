"""What a person sees on the terminal, and what a program reads."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table as RichTable
from rich.text import Text

from ml_postgres_optimization.errors import GenesisError
from ml_postgres_optimization.interfaces.reporter import Result, ShowInterval, Table
from ml_postgres_optimization.soak.figures.outline import RunOutline
from ml_postgres_optimization.soak.interval import Interval
from ml_postgres_optimization.soak.journal import Totals
from ml_postgres_optimization.target.postgres.connection.settings import on_one_line

PLAIN_LINE_EVERY_SECONDS = 10.0


class TerminalConsole(Console):
    """Leave a broken pipe to the caller, who knows whether work is under way; Rich would end the program."""

    def on_broken_pipe(self) -> None:
        """Raise it."""
        raise BrokenPipeError


class ConsoleReporter:
    """Show lines and progress: a bar on a terminal, a plain line now and then elsewhere.

    Parameters
    ----------
    stream : text stream
        Standard output; standard error when that carries JSON.
    """

    def __init__(self, stream: TextIO) -> None:
        self._console = TerminalConsole(file=stream, highlight=False, soft_wrap=True)
        self._bar: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._last_line: dict[str, float] = {}

    def say(self, text: str) -> None:
        """Show one line; where nobody can read it any more, the work goes on without."""
        with suppress(OSError):
            self._print(text)

    def progress(self, label: str, share: float) -> None:
        """Move the bar of `label`, or say a line when the last one is some time ago."""
        if self._console.is_terminal:
            with suppress(OSError):
                self._move_bar(label, share)
        elif share >= 1 or time.monotonic() - self._last_line.get(label, -math.inf) >= PLAIN_LINE_EVERY_SECONDS:
            self._last_line[label] = time.monotonic()
            self.say(f"{label}: {share:.0%}")

    @contextmanager
    def watching(
        self, run: RunOutline, earlier: Iterable[Interval] = (), so_far: Totals | None = None
    ) -> Iterator[ShowInterval]:
        """Show how an extended test stands: a live screen on a terminal, a plain line every minute elsewhere."""
        # imported here, since every other command does without
        from ml_postgres_optimization.interfaces.cli.soak_screen import SoakScreen  # noqa: PLC0415

        self.close()
        with SoakScreen(run, self._console, self.say, earlier, so_far=so_far) as screen:
            yield screen.add

    def close(self) -> None:
        """Take the bars away."""
        bar, self._bar = self._bar, None
        if bar:
            self._tasks.clear()
            with suppress(OSError):
                bar.stop()

    def show(self, result: Result) -> None:
        """Show a result's tables and lines.

        Raises
        ------
        OSError
            If they cannot be written.
        """
        self.close()
        for table in result.tables:
            self._console.print(_rich(table))
        for line in result.lines:
            self._print(line)

    def _print(self, text: str) -> None:
        (self._bar.console if self._bar else self._console).print(_harmless(text), markup=False)

    def _move_bar(self, label: str, share: float) -> None:
        if self._bar is None:
            columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._bar.start()
        if label not in self._tasks:
            self._tasks[label] = self._bar.add_task(label, total=1.0)
        self._bar.update(self._tasks[label], completed=min(1.0, share))


def _rich(table: Table) -> RichTable:
    shown = RichTable(
        title=_cell(table.title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for number, column in enumerate(table.columns):
        shown.add_column(_cell(column), overflow="fold", no_wrap=number < table.unbroken)
    for row in table.rows:
        shown.add_row(*map(_cell, row))
    return shown


def _cell(text: str) -> Text:
    return Text(_harmless(text))


def _harmless(text: str) -> str:
    """Return `text` without what could play with a terminal, since names in it are others' to choose."""
    return "\n".join(map(on_one_line, text.split("\n")))


def error_document(error: GenesisError) -> dict[str, object]:
    """Return an error as JSON: what happened, the next step, the exit code, and what a guard noted on it."""
    return {
        "error": {
            "kind": type(error).__name__,
            "what": one_line(error.what),
            "next_step": one_line(error.next_step),
            "exit_code": error.exit_code,
            "notes": [one_line(note) for note in getattr(error, "__notes__", ())],
        }
    }


def one_line(text: str) -> str:
    """Return `text` as one line that cannot play with a terminal."""
    return on_one_line(" ".join(text.split()))
