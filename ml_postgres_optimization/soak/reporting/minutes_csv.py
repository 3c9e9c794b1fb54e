"""A run's figures by minute as CSV, gaps as empty cells."""

from __future__ import annotations

import csv
import math
from datetime import timedelta
from pathlib import Path

from ml_postgres_optimization.soak.figures.fold import RunFigures
from ml_postgres_optimization.soak.interval import IntervalState
from ml_postgres_optimization.telemetry.export import write_whole

# Times first, then the load, then what it met.
_FAMILIES = ("response", "load", "lag", "error", "wait", "resource", "gauge", "rate")


def write_minutes_csv(figures: RunFigures, path: Path) -> None:
    """Write one row for each minute (each interval, where that is longer); times in seconds, loads per second.

    Raises
    ------
    OSError
        If it cannot be written; a file that was there before is left as it was.
    """
    write_whole(path, lambda partial: _write(figures, partial))


def _write(figures: RunFigures, path: Path) -> None:
    minutes = figures.minutes
    names = sorted(minutes, key=lambda name: (_FAMILIES.index(name.partition(".")[0]), name))
    columns = [minutes.column(name).tolist() for name in names]
    states = minute_states(figures)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["started_at", "state", *names])
        for number in range(len(minutes)):
            at = figures.description.started_at + timedelta(seconds=number * minutes.slot_seconds)
            cells = (column[number] for column in columns)
            writer.writerow([at.isoformat(), states[number], *("" if math.isnan(cell) else cell for cell in cells)])


def minute_states(figures: RunFigures) -> list[str]:
    """Return for each minute the states that it was in, other than measured, or ``measured``."""
    seconds = figures.minutes.slot_seconds
    states: list[list[str]] = [[] for _ in range(len(figures.minutes))]
    for gap in figures.gaps:
        for minute in range(int(gap.from_seconds // seconds), math.ceil(gap.until_seconds / seconds)):
            if minute < len(states) and gap.state.value not in states[minute]:
                states[minute].append(gap.state.value)
    return [" and ".join(found) or IntervalState.MEASURED.value for found in states]
