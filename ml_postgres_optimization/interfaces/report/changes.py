"""What a trial changed: old and new value of every knob, and how far apart they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ml_postgres_optimization.interfaces.report.canvas import BLUE, INK, PALE, SOFT, headline, paint, plain
from ml_postgres_optimization.interfaces.report.page import LeftOut, Picture
from ml_postgres_optimization.interfaces.trial_view import shown
from ml_postgres_optimization.knobs.catalogue import Catalogue
from ml_postgres_optimization.knobs.knob import KnobValue
from ml_postgres_optimization.target.postgres.repository import TrialRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "changes"
_MOST_ROWS, _MOST_CHARACTERS = 24, 12
# The columns of the figure, as shares of its width: name, old value, new value, and the axis of the factor.
_NAME_AT, _OLD_AT, _NEW_AT, _AXIS_FROM, _AXIS_TO = 0.0, 0.46, 0.59, 0.68, 0.93


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    old: str
    new: str
    factor: float | None
    otherwise: str


def changes_picture(record: TrialRecord, catalogue: Catalogue) -> Picture | LeftOut:
    """Draw the change of every knob: both values as an administrator writes them, and the factor between them."""
    rows = [_row(name, *values, catalogue) for name, values in record.candidate.difference(record.baseline).items()]
    if not rows:
        return LeftOut(NAME, "nothing differs between the two configurations.")
    caption = (
        "Each knob's value on the baseline and on the candidate. The bar shows the factor between them, doubling and "
        "halving being equally long; a switch, a choice, or a value with a meaning of its own (0, −1) has none."
    )
    drawn = rows[:_MOST_ROWS]
    png = paint(0.95 + 0.3 * len(drawn), lambda axes: _draw(axes, drawn, len(rows)))
    return Picture(NAME, caption, png)


def _row(name: str, old: KnobValue | None, new: KnobValue | None, catalogue: Catalogue) -> _Row:
    special = catalogue[name].special_values if name in catalogue else ()
    old_text, new_text = (plain(shown(name, value, catalogue), _MOST_CHARACTERS) for value in (old, new))
    return _Row(plain(name, 38), old_text, new_text, _factor(old, new, special), _otherwise(new))


def _factor(old: KnobValue | None, new: KnobValue | None, special: Sequence[KnobValue]) -> float | None:
    """Return new over old, where both are quantities."""
    if isinstance(old, bool | str | None) or isinstance(new, bool | str | None):
        return None
    return new / old if min(old, new) > 0 and not {old, new} & set(special) else None


def _otherwise(new: KnobValue | None) -> str:
    """Say what stands in the place of a factor."""
    if isinstance(new, bool):
        return "switched on" if new else "switched off"
    return "another choice" if isinstance(new, str) else "no factor"


def _draw(axes: Axes, rows: Sequence[_Row], in_all: int) -> None:
    more = f"; {in_all - len(rows)} more are in the table" if in_all > len(rows) else ""
    headline(axes, f"What was changed: {in_all} {'knob' if in_all == 1 else 'knobs'}{more}")
    axes.set(xlim=(0, 1), ylim=(len(rows) - 0.4, -1.25))
    axes.axis("off")
    for at, text in ((_NAME_AT, "knob"), (_OLD_AT, "baseline"), (_NEW_AT, "candidate")):
        axes.text(at, -0.8, text, color=SOFT, fontsize=9, va="center", ha="left" if at == _NAME_AT else "right")
    axes.text(
        (_AXIS_FROM + _AXIS_TO) / 2, -0.8, "factor, log scale", color=SOFT, fontsize=9, va="center", ha="center"
    )
    axes.plot((0, 1), (-0.5, -0.5), color=PALE, linewidth=1)
    widest = max((abs(math.log(row.factor)) for row in rows if row.factor), default=0.0)
    for number, row in enumerate(rows):
        _draw_row(axes, number, row, max(widest, math.log(2)))
    if widest:
        centre = (_AXIS_FROM + _AXIS_TO) / 2
        axes.plot((centre, centre), (-0.45, len(rows) - 0.5), color=PALE, linewidth=1, zorder=0)


def _draw_row(axes: Axes, number: int, row: _Row, widest: float) -> None:
    axes.text(_NAME_AT, number, row.name, va="center", fontsize=9.5)
    axes.text(_OLD_AT, number, row.old, va="center", ha="right", color=SOFT)
    axes.text(_OLD_AT + 0.012, number, "→", va="center", color=SOFT)
    axes.text(_NEW_AT, number, row.new, va="center", ha="right", color=INK)
    centre, half = (_AXIS_FROM + _AXIS_TO) / 2, (_AXIS_TO - _AXIS_FROM) / 2
    if row.factor is None:
        axes.text(centre, number, row.otherwise, va="center", ha="center", color=SOFT, fontsize=9,
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 2})  # fmt: skip
        return
    end = centre + half * math.log(row.factor) / widest
    axes.plot((centre, end), (number, number), color=BLUE, linewidth=7, solid_capstyle="butt")
    # a factor stands beyond the end of its bar
    outwards = 1 if row.factor >= 1 else -1
    axes.text(end + 0.01 * outwards, number, _factor_text(row.factor), va="center", color=BLUE, fontsize=9,
              ha="left" if outwards > 0 else "right")  # fmt: skip


def _factor_text(factor: float) -> str:
    return f"×{factor:.3g}" if factor >= 1 else f"÷{1 / factor:.3g}"
