"""How our pictures look: one width, colours that everybody can tell apart, no display.

matplotlib takes half a second to import, so that only drawing imports it.
"""

from __future__ import annotations

import io
import logging
import math
import textwrap
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal

from ml_postgres_optimization.interfaces.report.page import GENERATOR
from ml_postgres_optimization.target.postgres.connection.settings import on_one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# M. Okabe, K. Ito, Color Universal Design (2008): told apart by all common kinds of colour vision.
BLUE: Final = "#0072B2"
SKY: Final = "#56B4E9"
VERMILION: Final = "#D55E00"
INK: Final = "#1A1F24"
SOFT: Final = "#57606A"
PALE: Final = "#D0D7DE"

WIDTH_INCHES: Final = 8.0
DOTS_PER_INCH: Final = 160
_MARGIN_INCHES = 0.1
_TITLE_CHARACTERS, _NOTE_CHARACTERS = 74, 104
_STYLE: Final[Any] = {
    "axes.edgecolor": PALE,
    "axes.labelcolor": SOFT,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.family": ["DejaVu Sans"],  # comes with matplotlib: the same picture on every machine
    "font.size": 10,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "text.color": INK,
    "text.parse_math": False,  # a dollar in a name is a dollar
    "xtick.color": SOFT,
    "ytick.color": SOFT,
}


def paint(height_inches: float, draw: Callable[[Axes], None]) -> bytes:
    """Have `draw` fill the axes of a new figure, and return it as PNG.

    Parameters
    ----------
    height_inches : float
        Of a figure that is `WIDTH_INCHES` wide.
    draw : callable
        Receives the axes.
    """
    # where the user's folder cannot be written, it tells how to speed up its next start
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from matplotlib import rc_context, rcdefaults, rcParams  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    with rc_context(), warnings.catch_warnings():
        rcdefaults()  # a user's own style would break ours
        rcParams.update(_STYLE)
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        figure = Figure((WIDTH_INCHES, height_inches), dpi=DOTS_PER_INCH)
        figure.set_layout_engine("constrained", w_pad=_MARGIN_INCHES, h_pad=_MARGIN_INCHES)
        draw(figure.add_subplot())
        written = io.BytesIO()
        figure.savefig(written, format="png", metadata={"Software": GENERATOR})
    return written.getvalue()


def headline(axes: Axes, title: str, note: str = "") -> None:
    """Write what the picture shows above it, and in smaller print how to read it."""
    figure = axes.get_figure(root=True)
    assert figure is not None  # noqa: S101  # mypy's: axes of ours always stand in one
    figure.suptitle(
        _wrapped(title, _TITLE_CHARACTERS), x=_MARGIN_INCHES / WIDTH_INCHES, ha="left", fontsize=13, fontweight="bold"
    )
    if note:
        axes.set_title(_wrapped(note, _NOTE_CHARACTERS), loc="left", fontsize=9, color=SOFT)


def sentence(text: str) -> str:
    """Return `text` with a capital at its beginning."""
    return text[:1].upper() + text[1:]


def plain(text: str, characters: int = 60) -> str:
    """Return `text` as one line of at most so many characters, without what cannot be drawn."""
    line = on_one_line(" ".join(text.split()))
    return line if len(line) <= characters else f"{line[: characters - 1]}…"


def _wrapped(text: str, characters: int) -> str:
    return textwrap.fill(on_one_line(text), characters, max_lines=3, placeholder=" …")


def ratio_axis(axes: Axes, which: Literal["x", "y"], low: float, high: float) -> None:
    """Make an axis of ratios that shows ×2 and ÷2 as equally far, and labels them as changes.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    which : str
        ``x`` or ``y``.
    low, high : float
        Its ends, above 0, with 1 between them.
    """
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator  # noqa: PLC0415

    ticks = _ticks(low, high, _MOST_TICKS[which])
    axis = axes.xaxis if which == "x" else axes.yaxis
    axes.set(**{f"{which}scale": "log", f"{which}lim": (low, high)})
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FixedFormatter([change_label(tick) for tick in ticks]))


def change_label(ratio: float) -> str:
    """Return a ratio as a change: +12.5 %, 0 %, 5×."""
    if ratio > 3:
        return f"{ratio:.3g}×"
    percent = round((ratio - 1) * 100, 1)
    return "0 %" if percent == 0 else f"{percent:+g} %".replace("-", "−")


_WIDE = 4.0
_MOST_TICKS = {"x": 6, "y": 8}  # as many labels as have room
# Labels on a wide axis, the densest that have room: 1, 2, 5, 10, …; 1, 3, 10, …; powers of 10, of 100, of 1000.
_SERIES = (((1, 2, 5), 1), ((1, 3), 1), ((1,), 1), ((1,), 2), ((1,), 3))


def _ticks(low: float, high: float, most: int) -> list[float]:
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    if high / low < _WIDE:
        found = [1 + tick for tick in MaxNLocator(most, steps=[1, 2, 5, 10]).tick_values(low - 1, high - 1)]
    else:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        series = (
            [10.0**power * step for power in powers if power % every == 0 for step in steps]
            for steps, every in _SERIES
        )
        found = next((ticks for ticks in series if sum(low <= tick <= high for tick in ticks) <= most), [1.0])
    return [tick for tick in found if low <= tick <= high]
