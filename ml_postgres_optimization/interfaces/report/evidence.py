"""The evidence of a trial as it came: each pair, and what all pairs so far say."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ml_postgres_optimization.interfaces.report.canvas import (
    BLUE,
    INK,
    PALE,
    SKY,
    SOFT,
    VERMILION,
    change_label,
    headline,
    paint,
    ratio_axis,
    sentence,
)
from ml_postgres_optimization.interfaces.report.page import LeftOut, Picture
from ml_postgres_optimization.interfaces.trial_view import is_open, verdict_text
from ml_postgres_optimization.target.postgres.repository import TrialRecord
from ml_postgres_optimization.trials import Design, Interval, Pair, PairedTest, Thresholds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "evidence"
# Nine in ten pairs stand inside the axis with some room; one that is far out must not flatten all others.
_INSIDE, _ROOM = 0.9, 1.6
# Less than this share of the axis has no room for words side by side.
_NARROW = 0.18
_LEAST_SPAN, _MOST_SPAN = math.log(1.1), math.log(50)


class Step(NamedTuple):
    """What one more pair brought.

    Parameters
    ----------
    pairs : int
        How many there were, this one included.
    pair_ratio : float
        Candidate over baseline in this one.
    candidate_first : bool
    so_far : Interval
        Of all pairs up to this one.
    """

    pairs: int
    pair_ratio: float
    candidate_first: bool
    so_far: Interval


def evidence(record: TrialRecord) -> Iterator[Step]:
    """Replay the trial's test pair by pair."""
    test = PairedTest()
    for baseline_seconds, candidate_seconds, candidate_first in record.pairs:
        test.add(Pair(baseline_seconds, candidate_seconds, candidate_first))
        yield Step(len(test), candidate_seconds / baseline_seconds, candidate_first, test.interval())


def evidence_picture(record: TrialRecord, steps: Sequence[Step]) -> Picture | LeftOut:
    """Draw each pair as a point, and the interval that narrows around the effect."""
    if not steps:
        return LeftOut(NAME, "no pair of blocks could be compared.")
    caption = (
        "Each point is one pair of neighbouring blocks: the candidate's time over the baseline's; below the line the "
        "candidate was faster. The band is the 95 % interval of the effect after so many pairs, valid at every look. "
        "Before the sixth pair there is none. Dashed lines: what is too little to be worth a change."
    )
    return Picture(NAME, caption, paint(4.6, lambda axes: _draw(axes, record, steps)))


def _draw(axes: Axes, record: TrialRecord, steps: Sequence[Step]) -> None:
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    span = _span(steps)
    last = steps[-1].pairs
    headline(axes, verdict_text(record), sentence(record.verdict_reason))
    ratio_axis(axes, "y", math.exp(-span), math.exp(span))
    axes.set_xlim(0.5, last + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    minutes = (record.ended_at - record.started_at).total_seconds() / 60
    axes.set_xlabel(
        f"pairs of blocks, in the order of time ({minutes:.1f} min from {record.started_at:%Y-%m-%d %H:%M} UTC)"
    )
    axes.set_ylabel("← faster   candidate over baseline   slower →")
    _draw_limits(axes)
    _draw_interval(axes, steps, span)
    _draw_pairs(axes, record, steps, span)
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=5, fontsize=8, handletextpad=0.5, columnspacing=1.2
    )


def _span(steps: Sequence[Step]) -> float:
    """Return how far the axis reaches from 1 to either side, in logarithms."""
    far = np.abs(np.log([step.pair_ratio for step in steps]))
    so_far = steps[-1].so_far
    ends = [] if is_open(so_far) else [abs(math.log(so_far.low)), abs(math.log(so_far.high))]
    wanted = max([float(np.quantile(far, _INSIDE)) * _ROOM, *(1.25 * end for end in ends), _LEAST_SPAN])
    return min(wanted, _MOST_SPAN)


def _draw_limits(axes: Axes) -> None:
    margin = Thresholds().equivalence_ratio
    axes.axhline(1, color=INK, linewidth=1, zorder=1)
    for sign, label in ((-1, f"±{margin * 100:g} %: too little to matter"), (1, None)):
        axes.axhline(1 + sign * margin, color=SOFT, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1, label=label)


def _draw_interval(axes: Axes, steps: Sequence[Step], span: float) -> None:
    """Draw the band where there is one; where an end is still open, hatch what is not known."""
    numbers = [step.pairs for step in steps]
    known = [step for step in steps if not is_open(step.so_far)]
    at = [float(step.pairs) for step in known]
    open_until = at[0] if at else numbers[-1] + 0.5
    if open_until > 1:
        axes.axvspan(0.5, open_until, facecolor="none", edgecolor=PALE, hatch="////", linewidth=0, zorder=0)
        is_narrow = open_until < _NARROW * numbers[-1]
        turned: dict[str, Any] = {"rotation": 90, "va": "top"} if is_narrow else {"va": "center"}
        axes.text((0.5 + open_until) / 2, math.exp(0.93 * span), "no interval yet", ha="center", color=SOFT,
                  fontsize=8.5, bbox={"facecolor": "white", "edgecolor": "none", "pad": 2}, **turned)  # fmt: skip
    if known:
        # what the last pair left holds to the end of the axis, so that a band of one look can be seen
        known, at = [*known, known[-1]], [*at, at[-1] + 0.5]
        lows, highs = ([getattr(step.so_far, end) for step in known] for end in ("low", "high"))
        axes.fill_between(at, lows, highs, color=SKY, alpha=0.35, linewidth=0, zorder=2, label="95 % interval")
        for edge in (lows, highs):
            axes.plot(at, edge, color=SKY, linewidth=1.2, zorder=2)
    axes.plot(numbers, [step.so_far.ratio for step in steps], color=BLUE, linewidth=2, zorder=3, label="estimate")


def _draw_pairs(axes: Axes, record: TrialRecord, steps: Sequence[Step], span: float) -> None:
    """Draw the pairs; those that are beyond the axis as arrows at its edge, with their figure."""
    kinds: dict[str, bool | None] = {"pair, candidate first": True, "pair, baseline first": False}
    if record.design == Design.CONCURRENT:
        kinds = {"pair, side by side": None}
    for label, first in kinds.items():
        inside = [step for step in steps if first in (None, step.candidate_first) and _is_inside(step, span)]
        if inside:
            axes.plot([step.pairs for step in inside], [step.pair_ratio for step in inside], "o", color=VERMILION,
                      markersize=5, markerfacecolor="white" if first is False else VERMILION, zorder=4,
                      label=label)  # fmt: skip
    for step in steps:
        if not _is_inside(step, span):
            _draw_beyond(axes, step, span)


def _is_inside(step: Step, span: float) -> bool:
    return abs(math.log(step.pair_ratio)) <= span


def _draw_beyond(axes: Axes, step: Step, span: float) -> None:
    upwards = step.pair_ratio > 1
    edge = math.exp(span * (0.97 if upwards else -0.97))
    axes.plot(step.pairs, edge, "^" if upwards else "v", color=VERMILION, markersize=6, zorder=5, clip_on=False)
    axes.annotate(change_label(step.pair_ratio), (step.pairs, edge), (5, 0), textcoords="offset points", fontsize=8,
                  color=VERMILION, va="center")  # fmt: skip
