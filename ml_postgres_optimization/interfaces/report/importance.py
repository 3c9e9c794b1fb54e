"""Which knobs mattered: permutation importance with its uncertainty."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from ml_postgres_optimization.interfaces.report.canvas import BLUE, INK, PALE, SOFT, headline, paint, plain
from ml_postgres_optimization.interfaces.report.page import LeftOut, Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "importance"
_MOST_ROWS = 15
# Of a normal distribution, 95 % lie within so many standard deviations.
_DEVIATIONS = 1.96


def importance_picture(
    importance: Mapping[str, tuple[float, float]], tried: Collection[str], absent_because: str
) -> Picture | LeftOut:
    """Draw how much worse the forest forecasts without each knob.

    Parameters
    ----------
    importance : mapping of str to (mean, standard error)
    tried : collection of str
        The knobs of the trial, which stand out.
    absent_because : str
        Why `importance` is empty, where it is.
    """
    if not importance:
        return LeftOut(NAME, absent_because)
    chosen = _chosen(importance, tried)
    caption = (
        "How much worse the forest forecasts the response time of later windows, which it has not seen, when a "
        "knob's values are shuffled among them; lines are ± 1.96 standard errors. A knob whose line reaches 0 cannot "
        "be told from one that does nothing. It speaks of all windows that were judged, not of this trial alone; "
        "knobs that were always changed together share what they do."
    )
    png = paint(1.7 + 0.3 * len(chosen), lambda axes: _draw(axes, chosen, tried))
    return Picture(NAME, caption, png)


def _chosen(importance: Mapping[str, tuple[float, float]], tried: Collection[str]) -> list[tuple[str, float, float]]:
    """Return the greatest, but those that were tried in any case, the greatest first."""
    greatest = sorted(importance, key=lambda name: (name not in tried, -importance[name][0]))[:_MOST_ROWS]
    return [(name, *importance[name]) for name in sorted(greatest, key=lambda name: -importance[name][0])]


def _draw(axes: Axes, rows: Sequence[tuple[str, float, float]], tried: Collection[str]) -> None:
    note = "Blue: changed in this trial. Grey: not." if {name for name, _, _ in rows} - set(tried) else ""
    headline(axes, "Which knobs mattered, by what was learned from all windows", note)
    axes.axvline(0, color=INK, linewidth=1, zorder=1)
    for number, (name, mean, deviation) in enumerate(rows):
        colour = BLUE if name in tried else SOFT
        axes.errorbar(mean, number, xerr=_DEVIATIONS * deviation, fmt="o", color=colour, markersize=7, linewidth=2,
                      capsize=4, zorder=2)  # fmt: skip
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), [plain(name, 40) for name, _, _ in rows])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.grid(axis="x", color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("rise of the forecast's error when shuffled\n(logarithm of the response time; 0.1 is about 10 %)")
