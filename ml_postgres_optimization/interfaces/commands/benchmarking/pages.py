"""A benchmark on one page: the finding, a picture of both tables, and all figures."""

from __future__ import annotations

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

_HEIGHT_OF_A_LEVEL_INCHES, _MARGINS_INCHES = 0.95, 1.6
_BAR_HEIGHT = 0.32


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
        "Mean response from when an operation was due to its last attempt's end; thin lines are 95 % intervals over "
        "blocks, and the mark is the specification's limit in milliseconds."
    )
    return Picture("response", caption, paint(height, lambda axes: _draw(axes, levels)))


def _draw(axes: Axes, levels: Sequence[LevelSeen]) -> None:
    headline(axes, "Mean response, base against optimised", "Shorter is better; the scale is logarithmic.")
    axes.set(xscale="log", xlabel="milliseconds", ylim=(len(levels) - 0.4, -0.6))
    axes.set_yticks(range(len(levels)), [level.name for level in levels])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    lowest = min(_milliseconds(level)[0] for level in levels) / 3
    for number, level in enumerate(levels):
        _draw_arm(axes, number - _BAR_HEIGHT / 2, level.reference, SKY, lowest)
        _draw_arm(axes, number + _BAR_HEIGHT / 2, level.optimised, BLUE, lowest)
        limit = level.target.mean_seconds * 1000
        axes.plot((limit, limit), (number - _BAR_HEIGHT, number + _BAR_HEIGHT), color=VERMILION, linewidth=2)
        change = change_label(level.optimised.improvement.ratio)
        told = f"{change}\n{level.latency.value}"
        axes.annotate(told, (1, number), (8, 0), xycoords=axes.get_yaxis_transform(), textcoords="offset points",
                      va="center", fontsize=9, color=INK, annotation_clip=False)  # fmt: skip
    axes.set_xlim(lowest, 2 * max(_milliseconds(level)[1] for level in levels))


def _milliseconds(level: LevelSeen) -> tuple[float, float]:
    """Return the least and the greatest of what is drawn of a level."""
    shown = [1000 * seen.mean_seconds.ratio for seen in (level.reference, level.optimised)]
    shown.append(1000 * level.target.mean_seconds)
    return min(shown), max(shown)


def _draw_arm(axes: Axes, place: float, seen: ArmSeen, colour: str, lowest: float) -> None:
    mean, low, high = (1000 * seconds for seconds in seen.mean_seconds)
    axes.barh(place, mean - lowest, height=_BAR_HEIGHT, left=lowest, color=colour)
    if low > 0:  # with one block there is no interval
        axes.plot((low, high), (place, place), color=SOFT, linewidth=1)
    axes.annotate(f"{seen.arm.name}: {milliseconds(mean / 1000)}", (mean, place), (4, 0), textcoords="offset points",
                  va="center", fontsize=8, color=SOFT)  # fmt: skip
