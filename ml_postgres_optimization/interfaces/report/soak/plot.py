"""A plot over time as HTML around an SVG: lines or stacked areas, with gaps and marks, at any width."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml_postgres_optimization.interfaces.report.page import escaped
from ml_postgres_optimization.interfaces.report.soak.scale import (
    HEIGHT,
    WIDTH,
    Shown,
    TimeScale,
    ValueScale,
    linear_scale,
    logarithmic_scale,
    segments,
)
from ml_postgres_optimization.soak.figures.fold import Gap
from ml_postgres_optimization.soak.interval import Event, EventKind

# Seen through every plot; checkpoints are too many, and stand in a lane of their own.
MARKED_IN_PLOTS = frozenset(
    {EventKind.CONFIGURATION, EventKind.FAULT, EventKind.INTEGRITY, EventKind.MEMORY, EventKind.PLAN}
)


@dataclass(frozen=True, slots=True)
class Line:
    """One series of a plot.

    Parameters
    ----------
    name : str
    values : ndarray of shape (slots,)
        NaN where nothing was measured.
    colour : int
        Number of a colour of the page's palette, from 1.
    is_dashed : bool
    """

    name: str
    values: NDArray[np.float64]
    colour: int
    is_dashed: bool = False


@dataclass(frozen=True, slots=True)
class Plot:
    """What a plot shows.

    Parameters
    ----------
    title, note : str
        What it is, and how to read it.
    lines : sequence of Line
    shown : callable
        Makes a value readable, with its unit.
    is_stacked, is_logarithmic, is_from_zero : bool
    is_low : bool
        Half as high as the others.
    """

    title: str
    note: str
    lines: Sequence[Line]
    shown: Shown
    is_stacked: bool = False
    is_logarithmic: bool = False
    is_from_zero: bool = True
    is_low: bool = False


@dataclass(frozen=True, slots=True)
class Ground:
    """What all plots of a page stand on."""

    time: TimeScale
    gaps: Sequence[Gap]
    events: Sequence[Event]


def render_plot(plot: Plot, ground: Ground, number: int) -> str:
    """Return a plot as HTML; its numbers stand in the page's data under the same `number`."""
    stacked = _stacked(plot.lines) if plot.is_stacked else [line.values for line in plot.lines]
    everything = np.concatenate(stacked) if stacked else np.array([])
    scale = _scale(plot, everything)
    shapes = _areas(plot.lines, stacked, scale) if plot.is_stacked else _paths(plot.lines, scale)
    ticks = "".join(_tick(scale, tick, plot.shown) for tick in scale.ticks)
    height = " low" if plot.is_low else ""
    caption = f'<b>{escaped(plot.title)}</b> <span class="note">{escaped(plot.note)}</span>'
    return (
        f'<figure class="chart"><figcaption>{caption}</figcaption>{_legend(plot)}'
        f'<div class="plot{height}" data-plot="{number}" tabindex="0" role="img" '
        f'aria-label="{escaped(_spoken(plot))}">{ticks}'
        f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" preserveAspectRatio="none" aria-hidden="true">{shapes}</svg>'
        f"{bands(ground)}{_marks(ground)}</div>{time_labels(ground.time)}</figure>"
    )


def _scale(plot: Plot, values: NDArray[np.float64]) -> ValueScale:
    if plot.is_logarithmic:
        return logarithmic_scale(values)
    return linear_scale(values, from_zero=plot.is_from_zero)


def _stacked(lines: Sequence[Line]) -> list[NDArray[np.float64]]:
    return list(np.cumsum([line.values for line in lines], axis=0)) if lines else []


def _paths(lines: Iterable[Line], scale: ValueScale) -> str:
    return "".join(
        f'<path class="line c{line.colour}{" dashed" if line.is_dashed else ""}" '
        f'd="{"".join(_path(scale.places(line.values), part) for part in segments(line.values))}"/>'
        for line in lines
    )


def _path(places: NDArray[np.float64], part: slice) -> str:
    at = _across(len(places))
    points = [f"{x:.1f} {y:.2f}" for x, y in zip(at[part], places[part], strict=True)]
    # a single point is drawn as a dot, by the round end of a line without length
    return f"M{points[0]}L{'L'.join(points[1:] or points)}"


def _areas(lines: Sequence[Line], tops: Sequence[NDArray[np.float64]], scale: ValueScale) -> str:
    shapes = []
    bottom = np.zeros_like(tops[0]) if tops else np.array([])
    for line, top in zip(lines, tops, strict=True):
        upper, lower, at = scale.places(top), scale.places(bottom), _edges(len(top))
        outline = []
        for part in segments(top):
            there = [f"{x:.1f} {y:.2f}" for x, y in _steps(at, upper, part)]
            back = [f"{x:.1f} {y:.2f}" for x, y in reversed(_steps(at, lower, part))]
            outline.append(f"M{'L'.join(there)}L{'L'.join(back)}Z")
        shapes.append(f'<path class="area c{line.colour}" d="{"".join(outline)}"/>')
        bottom = top
    return "".join(shapes)


def _steps(edges: NDArray[np.float64], places: NDArray[np.float64], part: slice) -> list[tuple[float, float]]:
    """Return a slot as wide as it is: what is counted in a slot says nothing of the moments in it."""
    return [
        (float(edges[slot + side]), float(places[slot])) for slot in range(part.start, part.stop) for side in (0, 1)
    ]


def _across(slots: int) -> NDArray[np.float64]:
    edges = _edges(slots)
    return (edges[1:] + edges[:-1]) / 2


def _edges(slots: int) -> NDArray[np.float64]:
    return np.linspace(0.0, WIDTH, slots + 1)


def _tick(scale: ValueScale, tick: float, shown: Shown) -> str:
    place = float(scale.places(np.array([tick]))[0]) / HEIGHT
    return f'<i class="tick" style="top:{place:.2%}"><span>{escaped(shown(tick))}</span></i>'


def time_labels(time: TimeScale) -> str:
    """Return the labels of the time axis."""
    labels = "".join(f'<span style="left:{share:.3%}">{escaped(label)}</span>' for share, label in time.labels())
    return f'<div class="hours" aria-hidden="true">{labels}</div>'


def bands(ground: Ground) -> str:
    """Return the gaps as bands, each named."""
    return "".join(
        f'<i class="gap {word(gap.state.value)}" title="{gap.state.value}" '
        f'style="left:{left:.3%};width:{right - left:.3%}"></i>'
        for gap in ground.gaps
        for left, right in [(ground.time.share(gap.from_seconds), ground.time.share(gap.until_seconds))]
    )


def word(name: str) -> str:
    """Return the name that the style sheet has for a kind of event, or for a state."""
    return name.replace(" ", "-")


def _marks(ground: Ground) -> str:
    return "".join(
        f'<i class="mark {word(event.kind.value)}" style="left:{ground.time.share_at(event.at):.3%}"></i>'
        for event in ground.events
        if event.kind in MARKED_IN_PLOTS
    )


def _legend(plot: Plot) -> str:
    items = "".join(
        f'<span class="key c{line.colour}{" dashed" if line.is_dashed else ""}">{escaped(line.name)}</span>'
        for line in (reversed(plot.lines) if plot.is_stacked else plot.lines)
    )
    # a stack of one class is named, too: its title says what is counted, not which
    is_needed = len(plot.lines) > 1 or (plot.is_stacked and plot.lines)
    return f'<div class="legend">{items}</div>' if is_needed else ""


def _spoken(plot: Plot) -> str:
    """Return a plot in words, for whoever does not see it."""
    parts = []
    for line in plot.lines:
        finite = line.values[np.isfinite(line.values)]
        if finite.size:
            low, middle, high = (plot.shown(float(value)) for value in np.quantile(finite, [0, 0.5, 1]))
            parts.append(f"{line.name}: {low} to {high}, median {middle}")
    return f"{plot.title}. {'; '.join(parts) or 'nothing measured'}."
