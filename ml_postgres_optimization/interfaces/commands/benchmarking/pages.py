"""A benchmark on one page: the finding, a picture of both tables, and all figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from ml_postgres_optimization.comparison.verdict import ArmSeen, LevelSeen
from ml_postgres_optimization.interfaces.report import Page, Picture, Section, render_page
from ml_postgres_optimization.interfaces.report.canvas import (
    BLUE,
    INK,
    SKY,
    SOFT,
    VERMILION,
    change_label,
    headline,
    paint,
)
from ml_postgres_optimization.interfaces.reporter import Table, milliseconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HEIGHT_OF_A_LEVEL_INCHES, _MARGINS_INCHES = 1.1, 1.6
_OFFSET, _HALF_A_ROW = 0.18, 0.42


def comparison_page(
    levels: Sequence[LevelSeen],
    *,
    heading: str,
    story: Sequence[str],
    tables: Sequence[Table],
    made_at: datetime,
) -> str:
    """Return the page as HTML.

    Parameters
    ----------
    levels : sequence of LevelSeen
    heading : str
        Which run this was.
    story : sequence of str
        The finding, its first sentence by itself.
    tables : sequence of Table
        The specification's two first.
    made_at : datetime
    """
    sections = [
        Section("Response and errors", pictures=[response_picture(levels)], tables=tables[:2]),
        Section(
            "Behind it",
            [
                "Blocks of all arms alternate on tables that are made anew for each, at the same times of arrival "
                "and with the same faults. Intervals are of 95 %, from the blocks of a round as pairs."
            ],
            tables=tables[2:],
        ),
    ]
    return render_page(Page(heading, story[0], story[1:], sections, made_at))


def response_picture(levels: Sequence[LevelSeen]) -> Picture:
    """Draw the mean response of base and of what is optimised, level by level, with the target."""
    height = _MARGINS_INCHES + _HEIGHT_OF_A_LEVEL_INCHES * len(levels)
    caption = (
        "Mean response from when an operation was due to its last attempt's end; lines are 95 % intervals over "
        "blocks, and the mark is the specification's limit in milliseconds."
    )
    return Picture("response", caption, paint(height, lambda axes: _draw(axes, levels)))


def _draw(axes: Axes, levels: Sequence[LevelSeen]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator  # noqa: PLC0415  (half a second)

    headline(axes, "Mean response, base against optimised", "Left is better; the scale is logarithmic.")
    lowest, highest = _span(levels)
    axes.set(xscale="log", xlim=(lowest, highest), xlabel="milliseconds", ylim=(len(levels) - 0.4, -0.6))
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:g}"))
    axes.set_yticks(range(len(levels)), [level.name for level in levels])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    for number, level in enumerate(levels):
        limit = level.target.mean_seconds * 1000
        axes.plot((limit, limit), (number - _HALF_A_ROW, number + _HALF_A_ROW), color=VERMILION, linewidth=2)
        _draw_arm(axes, number - _OFFSET, level.reference, SKY)
        _draw_arm(axes, number + _OFFSET, level.optimised, BLUE)
        told = f"{change_label(level.optimised.improvement.ratio)}\n{level.latency.value}"
        axes.annotate(told, (1, number), (8, 0), xycoords=axes.get_yaxis_transform(), textcoords="offset points",
                      va="center", fontsize=9, color=INK, annotation_clip=False)  # fmt: skip


def _span(levels: Sequence[LevelSeen]) -> tuple[float, float]:
    """Return the ends of the axis, in milliseconds: around means and limits; intervals may go beyond."""
    shown = [1000 * level.target.mean_seconds for level in levels]
    shown += [1000 * seen.mean_seconds.ratio for level in levels for seen in (level.reference, level.optimised)]
    return min(shown) / 4, max(shown) * 4


def _draw_arm(axes: Axes, place: float, seen: ArmSeen, colour: str) -> None:
    mean, low, high = (1000 * seconds for seconds in seen.mean_seconds)
    if math.isfinite(high):  # with one block there is no interval
        axes.plot((max(low, axes.get_xlim()[0]), high), (place, place), color=colour, linewidth=2)
    axes.plot(mean, place, "o", color=colour, markersize=8)
    axes.annotate(f"{seen.arm.name} {milliseconds(mean / 1000)}", (mean, place), (0, 6), textcoords="offset points",
                  ha="center", fontsize=8, color=SOFT)  # fmt: skip
