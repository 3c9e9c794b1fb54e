"""Judge a forecast on time that it has not seen, against the naive one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml_postgres_optimization.errors import NotEnoughData

Floats = NDArray[np.float64]
LEVEL = 0.9
MARGIN = 0.01  # of the naive forecast's error: less than this is worth nothing to a user
_RESAMPLES = 1_000
_ONE_SIDED = 0.025


@dataclass(frozen=True, slots=True)
class Skill:
    """How much better than the naive forecast.

    Parameters
    ----------
    error, naive_error : float
        Mean loss of the model and of the naive forecast.
    ratio : float
        ``1 - error / naive_error``: 0 is as good as naive, 1 is perfect, negative is worse.
    low : float
        Lower end of `ratio`'s 95 % interval.
    """

    error: float
    naive_error: float
    ratio: float
    low: float

    @property
    def beats_naive(self) -> bool:
        """Whether it is better by `MARGIN` at least, and not by chance."""
        return self.low > MARGIN

    @classmethod
    def restore(cls, stored: Mapping[str, Any]) -> Skill:
        """Rebuild what ``dataclasses.asdict`` gave."""
        return cls(**{name: float(value) for name, value in stored.items()})


@dataclass(frozen=True, slots=True)
class ForecastScore:
    """How good a forecast of latency was on later, held-out time.

    Parameters
    ----------
    windows : int
        Held-out windows that it was scored on.
    skill : Skill
        Loss: absolute error of the natural log, so that an `error` of 0.1 is about 10 % off.
    coverage_ratio : float
        How often the truth fell into the interval.
    level : float
        How often it should.
    """

    windows: int
    skill: Skill
    coverage_ratio: float
    level: float = LEVEL

    @property
    def beats_naive(self) -> bool:
        """Whether the forecast may be acted on."""
        return self.skill.beats_naive

    @classmethod
    def restore(cls, stored: Mapping[str, Any]) -> ForecastScore:
        """Rebuild what ``dataclasses.asdict`` gave."""
        windows, skill_of = int(stored["windows"]), Skill.restore(stored["skill"])
        return cls(windows, skill_of, float(stored["coverage_ratio"]), float(stored["level"]))


@dataclass(frozen=True, slots=True)
class ErrorScore:
    """How good the forecast of one class of errors was on later, held-out time.

    Parameters
    ----------
    windows, occurrences : int
        Held-out windows that it was scored on, and in how many of them an error of the class occurred.
    skill : Skill
        Loss: Brier score, the mean squared error of the probability.
    """

    windows: int
    occurrences: int
    skill: Skill

    @property
    def beats_naive(self) -> bool:
        """Whether the forecast may be acted on; a handful of occurrences cannot tell."""
        return self.occurrences >= MINIMUM_OCCURRENCES and self.skill.beats_naive

    @classmethod
    def restore(cls, stored: Mapping[str, Any]) -> ErrorScore:
        """Rebuild what ``dataclasses.asdict`` gave."""
        return cls(int(stored["windows"]), int(stored["occurrences"]), Skill.restore(stored["skill"]))


MINIMUM_OCCURRENCES = 5


@dataclass(frozen=True, slots=True)
class TimeSlices:
    """Rows of a table for growing, calibrating and scoring, each later than the one before and never shuffled."""

    training: NDArray[np.intp]
    calibration: NDArray[np.intp]
    test: NDArray[np.intp]


_TRAINING_SHARE, _CALIBRATION_SHARE = 0.6, 0.2


def time_slices(started_at: Floats, ended_at: Floats) -> TimeSlices:
    """Cut rows that are in the order of time into 60, 20 and 20 %, with a gap of one window between the slices.

    The label of the last row of a slice is the window after it; the gap keeps that window out of the next slice.

    Parameters
    ----------
    started_at, ended_at : ndarray of float64, shape (n_rows,)
        Seconds.
    """
    rows = np.arange(len(ended_at))
    first, second = (
        math.ceil(len(rows) * share) for share in (_TRAINING_SHARE, _TRAINING_SHARE + _CALIBRATION_SHARE)
    )
    return TimeSlices(
        rows[:first],
        _after_gap(rows[first:second], rows[:first], started_at, ended_at),
        _after_gap(rows[second:], rows[:second], started_at, ended_at),
    )


def _after_gap(
    rows: NDArray[np.intp], before: NDArray[np.intp], started_at: Floats, ended_at: Floats
) -> NDArray[np.intp]:
    if not len(before):
        return rows
    last = before[-1]
    gap_ends_at = ended_at[last] + (ended_at[last] - started_at[last])
    later: NDArray[np.intp] = rows[started_at[rows] >= gap_ends_at - 1e-3]
    return later


def require_slices(slices: TimeSlices, seen: int, needed: int, model: str) -> None:
    """Refuse to learn from too few windows.

    Raises
    ------
    NotEnoughData
        If `seen` is below `needed`, or a slice has fewer than `MINIMUM_SLICE` rows left after the gaps.
    """
    if seen < needed:
        raise NotEnoughData(
            f"The {model} needs {needed} windows to learn from, and has seen {seen}.",
            f"Record {needed - seen} more, or make some with --simulate.",
        )
    shortest = min(len(slices.calibration), len(slices.test))
    if shortest < MINIMUM_SLICE:
        raise NotEnoughData(
            f"The {model} needs {MINIMUM_SLICE} windows in each later slice of time, and has seen {shortest}.",
            "Record for longer: windows of one moment cannot judge a forecast.",
        )


MINIMUM_SLICE = 9  # the fewest residuals whose largest holds the next one at 90 %: ceil((9 + 1) * 0.9) = 9


def conformal_factor(scores: Floats, weights: Floats | None = None, level: float = LEVEL) -> float:
    """Return the factor by which a spread must be multiplied to hold the next residual at `level`.

    The ``ceil((n + 1) * level)``-th smallest score; the largest where there are too few. With weights, the first one
    with which the scores up to it have ``level`` of the weight of all, and of one more.

    Parameters
    ----------
    scores : ndarray of float64, shape (n,)
        ``|residual| / spread`` of each.
    weights : ndarray of float64, shape (n,), optional
        What each counts, beside 1 for the next one.

    References
    ----------
    J. Lei et al., Distribution-free predictive inference for regression, JASA 113 (2018), sections 2.2 and 5.2:
    split conformal prediction with locally weighted residuals.
    R. Barber et al., Conformal prediction beyond exchangeability, Annals of Statistics 51 (2023): weights.
    """
    order = np.argsort(scores, kind="stable")
    counted = np.cumsum(np.ones(len(scores)) if weights is None else weights[order])
    rank = int(np.searchsorted(counted, level * (counted[-1] + 1.0) - 1e-9))
    return float(scores[order[min(rank, len(scores) - 1)]])


STEP = 0.1  # larger follows a shift sooner and wavers more: docs/decisions/0010-random-forests.md
_NARROWEST, _WIDEST = math.log(0.25), math.log(20.0)


@dataclass(frozen=True, slots=True)
class IntervalWidth:
    """By what an interval is stretched so that it holds as often as it says, also where the world has shifted.

    The log rises by ``STEP * level`` after an outcome outside of the interval, and falls by ``STEP * (1 - level)``
    after one inside. Of any n outcomes, whatever they were, a share of ``1 - level`` then lies outside, up to the
    change of the log over ``STEP * n``; fewer where it has come to its lowest, and more only where it is at its
    highest, a twentyfold width.

    Parameters
    ----------
    log_ratio : float
        Natural log of the ratio; 0 is the width that was calibrated.

    References
    ----------
    I. Gibbs and E. Candès, Adaptive conformal inference under distribution shift, NeurIPS 34 (2021).
    A. Angelopoulos et al., Conformal PID control for time series prediction, NeurIPS 36 (2023): the quantile itself
    is adapted instead of its level.

    Examples
    --------
    >>> width = IntervalWidth().after(held=False, level=0.9)
    >>> round(width.ratio, 3)
    1.094
    """

    log_ratio: float = 0.0

    @property
    def ratio(self) -> float:
        """How many times as wide, in logs, as it was calibrated."""
        return math.exp(self.log_ratio)

    def after(self, *, held: bool, level: float) -> IntervalWidth:
        """Return the width for the next forecast, after it is known whether the last one's interval held."""
        moved = self.log_ratio + STEP * (level - held)
        return IntervalWidth(min(max(moved, _NARROWEST), _WIDEST))


def skill(loss: Floats, naive_loss: Floats, *, seed: int) -> Skill:
    """Compare paired losses in the order of time.

    The interval is that of a moving block bootstrap with blocks of ``n ** (1 / 3)`` losses, since those of
    neighbouring windows are alike. Fewer than `MINIMUM_LOSSES` cannot show that a forecast is better.

    References
    ----------
    H. Künsch, The jackknife and the bootstrap for general stationary observations, Annals of Statistics 17 (1989).
    """
    starts, length = _block_starts(len(loss), np.random.default_rng(seed))
    model, naive = (_block_means(losses, starts, length) for losses in (loss, naive_loss))
    low = float(np.quantile(1.0 - (model + _TINY) / (naive + _TINY), _ONE_SIDED))
    error, naive_error = float(loss.mean()), float(naive_loss.mean())
    is_telling = len(loss) >= MINIMUM_LOSSES
    return Skill(
        error, naive_error, 1.0 - (error + _TINY) / (naive_error + _TINY), low if is_telling else min(low, 0.0)
    )


def standard_error(losses: Floats, *, seed: int) -> float:
    """Return the standard error of the mean of losses in the order of time, by the same bootstrap as `skill`.

    Infinite where there is only one.
    """
    if len(losses) < 2:
        return math.inf
    means = _block_means(losses, *_block_starts(len(losses), np.random.default_rng(seed)))
    # resamples of n differ by n - 1 of n parts of what samples of n differ by
    return float(np.std(means)) * math.sqrt(len(losses) / (len(losses) - 1))


MINIMUM_LOSSES = 8  # were each a fair coin's toss: one in 2 ** 8 that all fall to one side


_TINY = 1e-12  # so that two forecasts without any error are equally good


def _block_starts(rows: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], int]:
    """Return where the blocks of each resample start, shape (n_resamples, n_blocks), and their length."""
    length = max(1, round(rows ** (1 / 3)))
    return rng.integers(0, rows - length + 1, size=(_RESAMPLES, math.ceil(rows / length))), length


def _block_means(losses: Floats, starts: NDArray[np.int64], length: int) -> Floats:
    running = np.concatenate([[0.0], np.cumsum(losses)])
    means: Floats = (running[starts + length] - running[starts]).mean(axis=1) / length
    return means
