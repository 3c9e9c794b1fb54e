"""How long work tells the user how far it is, and what a command gives back."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

from ml_postgres_optimization.soak.figures.outline import RunOutline
from ml_postgres_optimization.soak.interval import Interval
from ml_postgres_optimization.soak.journal import Totals

ShowInterval = Callable[[Interval], None]
"""Shows how an extended test stands after one more interval."""
_NOTHING_YET = Totals()


class Reporter(Protocol):
    """Tell the user what is happening."""

    def say(self, text: str) -> None:
        """Show one line."""

    def progress(self, label: str, share: float) -> None:
        """Show that `share` (0 to 1) of what `label` names is done."""

    def watching(
        self, run: RunOutline, earlier: Iterable[Interval] = (), so_far: Totals = _NOTHING_YET
    ) -> AbstractContextManager[ShowInterval]:
        """Show how an extended test stands as long as the context lasts; what was before, and `earlier`, counted."""


class Silence:
    """Tell nobody: for use as a library."""

    def say(self, text: str) -> None:
        """Drop `text`."""

    def progress(self, label: str, share: float) -> None:
        """Drop the progress."""

    def watching(
        self, _run: RunOutline, _earlier: Iterable[Interval] = (), _so_far: Totals = _NOTHING_YET
    ) -> AbstractContextManager[ShowInterval]:
        """Drop each interval."""
        return nullcontext(lambda _interval: None)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows for reading; numbers are formatted already.

    Parameters
    ----------
    title : str
    columns : sequence of str
    rows : sequence of sequences of str
    unbroken : int
        How many columns, from the left, are never broken over lines: names that a user copies.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    unbroken: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """What a command gives back, for programs and for people.

    Parameters
    ----------
    document : mapping
        JSON-ready; times in seconds.
    tables, lines : sequence
        The same for reading, times in milliseconds.
    exit_code : int
        0, or 1 when a criterion or an objective was not met.
    """

    document: Mapping[str, object]
    tables: Sequence[Table] = ()
    lines: Sequence[str] = field(default_factory=tuple)
    exit_code: int = 0


def milliseconds(seconds: float | None) -> str:
    """Format a duration for the screen; a dash where there is none."""
    return "–" if seconds is None or seconds != seconds else f"{seconds * 1000:.2f} ms"  # noqa: PLR0124  # NaN


def json_text(document: Mapping[str, object]) -> str:
    """Return one JSON document; what is not a number becomes null, as JSON knows no NaN."""
    return json.dumps(_finite(document), indent=2, default=str, ensure_ascii=False) + "\n"


def _finite(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_finite(item) for item in value]
    return value
