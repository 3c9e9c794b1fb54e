"""The effect of a trial by measure, each with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ml_postgres_optimization.interfaces.report.canvas import (
    BLUE,
    INK,
    PALE,
    VERMILION,
    headline,
    paint,
    plain,
    ratio_axis,
)
from ml_postgres_optimization.interfaces.report.page import LeftOut, Picture
from ml_postgres_optimization.interfaces.reporter import milliseconds
from ml_postgres_optimization.interfaces.trial_view import (
    effect_of,
    effects_of,
    interval_text,
    is_open,
    percent_change,
    verdict_text,
)
from ml_postgres_optimization.target.postgres.repository import TrialRecord
from ml_postgres_optimization.trials import Arm, Interval, Measure, Thresholds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "effects"
_MEASURES = {
    Measure.MEAN: "mean response",
    Measure.P95: "95th percentile",
    Measure.P99: "99th percentile",
    Measure.THROUGHPUT: "time for one operation",
}
_MOST_PARTS = 8
_LEAST_SPAN, _MOST_SPAN = math.log(1.1), math.log(1000)


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of the figure; without an interval where none is known."""

    name: str
    ratio: float
    interval: Interval | None
    note: str
    colour: str = INK


def effects_picture(record: TrialRecord) -> Picture | LeftOut:
    """Draw the effect by every measure that is known, and of the parts that got slower, with their intervals."""
    rows = [*_objective_row(record), *_measure_rows(record), *_part_rows(record)]
    if not rows:
        return LeftOut(NAME, "no pair of blocks could be compared, so that no effect can be given.")
    caption = (
        "Candidate over baseline: left of the line it was faster. Lines are 95 % intervals, each taken for itself; "
        "a dashed one with arrows is still open, and a hollow point has none. The verdict rests on its own measure "
        "alone. The grey band is what is too little to be worth a change."
    )
    return Picture(NAME, caption, paint(1.75 + 0.42 * len(rows), lambda axes: _draw(axes, record, rows)))


def _objective_row(record: TrialRecord) -> list[_Row]:
    if not record.pairs or not (0 < record.ratio < math.inf):
        return []
    if (interval := effect_of(record)) in effects_of(record).values():
        return []  # its measure's own row tells the same
    return [_Row("objective\n(the verdict's)", record.ratio, interval, f"{len(record.pairs)} pairs", BLUE)]


def _measure_rows(record: TrialRecord) -> list[_Row]:
    """Return a row for each measure; trials of earlier versions have both arms' figures and no intervals."""
    effects = effects_of(record)
    rows = []
    for measure, name in _MEASURES.items():
        seconds = [record.figures.get(f"{arm}_{measure}_seconds", math.nan) for arm in (Arm.BASELINE, Arm.CANDIDATE)]
        note = "" if any(map(math.isnan, seconds)) else " → ".join(map(milliseconds, seconds))
        ratio = effects[measure].ratio if measure in effects else seconds[1] / (seconds[0] or math.nan)
        if 0 < ratio < math.inf:
            is_objective = measure in effects and effects[measure] == effect_of(record)
            colour, mark = (BLUE, "\n(the verdict's)") if is_objective else (INK, "")
            rows.append(_Row(name + mark, ratio, effects.get(measure), note, colour))
    return rows


def _part_rows(record: TrialRecord) -> list[_Row]:
    parts = sorted(record.slower_parts, key=lambda part: -part.share)[:_MOST_PARTS]
    return [
        _Row(plain(part.part, 28), part.ratio, Interval(part.ratio, part.ratio_low, part.ratio_high),
             f"slower; {part.share:.1%} of the time", VERMILION)
        for part in parts
        if 0 < part.ratio < math.inf
    ]  # fmt: skip


def _draw(axes: Axes, record: TrialRecord, rows: Sequence[_Row]) -> None:
    headline(axes, verdict_text(record), "The effect by measure, each taken for itself.")
    span = _span(rows)
    ratio_axis(axes, "x", math.exp(-span), math.exp(span))
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlabel="← faster   time, candidate over baseline   slower →")
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.tick_params(axis="y", length=0, labelsize=10, labelcolor=INK)
    axes.spines["left"].set_visible(False)
    margin = Thresholds().equivalence_ratio
    axes.axvspan(1 - margin, 1 + margin, color=PALE, alpha=0.5, linewidth=0, zorder=0)
    axes.axvline(1, color=INK, linewidth=1, zorder=1)
    for number, row in enumerate(rows):
        _draw_row(axes, number, row, span)


def _span(rows: Sequence[_Row]) -> float:
    known = [row.interval for row in rows if row.interval and not is_open(row.interval)]
    ends = [abs(math.log(end)) for interval in known for end in (interval.low, interval.high)]
    points = [abs(math.log(row.ratio)) for row in rows]
    return min(max([1.2 * max([*ends, *points]), _LEAST_SPAN]), _MOST_SPAN)


def _draw_row(axes: Axes, number: int, row: _Row, span: float) -> None:
    inner = math.exp(-0.98 * span), math.exp(0.98 * span)
    if row.interval and is_open(row.interval):
        axes.annotate("", (inner[0], number), (inner[1], number),
                      arrowprops={"arrowstyle": "<->", "linestyle": "--", "color": row.colour, "alpha": 0.6},
                      )  # fmt: skip
    elif row.interval:
        ends = [min(max(end, inner[0]), inner[1]) for end in (row.interval.low, row.interval.high)]
        axes.plot(ends, (number, number), color=row.colour, linewidth=2.5, solid_capstyle="round", zorder=2)
    axes.plot(min(max(row.ratio, inner[0]), inner[1]), number, "o", color=row.colour, markersize=8, zorder=3,
              markerfacecolor=row.colour if row.interval else "white")  # fmt: skip
    told = interval_text(row.interval) if row.interval else f"{percent_change(row.ratio)} (no interval kept)"
    axes.annotate(f"{told}\n{row.note}" if row.note else told, (1, number), (10, 0), annotation_clip=False,
                  xycoords=axes.get_yaxis_transform(), textcoords="offset points", va="center", fontsize=8.5,
                  color=row.colour)  # fmt: skip
