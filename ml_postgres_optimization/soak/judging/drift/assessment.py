"""Whether the metrics of a run have drifted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from ml_postgres_optimization.soak.figures.fold import RunFigures
from ml_postgres_optimization.soak.judging.drift.blocks import Blocks, blocks_of
from ml_postgres_optimization.soak.judging.drift.cycle import LEAST_CYCLES, without_cycle
from ml_postgres_optimization.soak.judging.drift.shift import shifts
from ml_postgres_optimization.soak.judging.drift.trend import (
    Rest,
    Series,
    holm,
    mann_kendall,
    theil_sen,
    trend_probability,
)
from ml_postgres_optimization.soak.judging.metrics import OFFERED, Metric

LEAST_BLOCKS = 10
# What "could have been found" is found in nine runs of ten. The noise from which it is computed is an estimate, so
# that it takes aiming a little higher (`benchmarks/drift_detection.py`).
_AIMED_POWER = 0.98


@dataclass(frozen=True, slots=True)
class TrendTest:
    """What a trend must be to be found: larger than `minimum_ratio`, and less probable than `accident_ratio`."""

    minimum_ratio: float
    accident_ratio: float


@dataclass(frozen=True, slots=True)
class Drift:
    """What became of one metric over a run.

    Parameters
    ----------
    metric : Metric
    level : float
        Median of the blocks, in the metric's unit; NaN where it was not measured.
    change_ratio : float
        Theil-Sen's slope over the whole run, relative to the level.
    slope_per_hour, late_slope_per_hour : float
        In the metric's unit, over the whole run and over its second half.
    probability : float
        Of such a trend where there is none, corrected by Holm for all metrics.
    plain_score : float
        Mann-Kendall's standard score of the blocks as they are: whether the metric did grow, be it by chance.
    detectable_ratio : float
        Smallest drift that would have been found in nine of ten runs like this one.
    correlation : float
        From one block to the next.
    blocks_total : int
    block_seconds : float
    is_without_cycle : bool
        Whether the cycle was taken out.
    shifts_hours : tuple of float
        When the level changed at once, in hours since the start.
    found : bool
        Significant, and at least the practical minimum.
    doubt : str or None
        Why nothing can be said, in a sentence.
    """

    metric: Metric
    level: float = math.nan
    change_ratio: float = math.nan
    slope_per_hour: float = math.nan
    late_slope_per_hour: float = math.nan
    probability: float = 1.0
    plain_score: float = 0.0
    detectable_ratio: float = math.nan
    correlation: float = 0.0
    blocks_total: int = 0
    block_seconds: float = 0.0
    is_without_cycle: bool = False
    shifts_hours: tuple[float, ...] = ()
    found: bool = False
    doubt: str | None = None

    @property
    def is_worse(self) -> bool:
        """Whether a drift was found, and for the worse."""
        return self.found and self.doubt is None and self.change_ratio * self.metric.worse > 0


def assess(
    figures: RunFigures, metrics: Mapping[str, Metric], minimum_ratio: float, confidence_ratio: float
) -> dict[str, Drift]:
    """Look at every metric for drift, and correct for their number.

    Parameters
    ----------
    figures : RunFigures
    metrics : mapping of str to Metric
    minimum_ratio : float
        The practical minimum, over the whole run.
    confidence_ratio : float
        1 minus the probability of any false alarm.

    Notes
    -----
    Where the offered load itself has drifted, or has changed without repeating itself at least twice, a metric that
    follows it cannot be said to have drifted: it gets a doubt.
    """
    cycle = figures.description.cycle_seconds
    # what the smallest of several probabilities must be below: Holm's first step
    test = TrendTest(minimum_ratio, (1 - confidence_ratio) / max(1, len(metrics)))
    drifts = {name: drift_of(blocks_of(figures, metric), metric, cycle, test) for name, metric in metrics.items()}
    drifts = corrected(drifts, minimum_ratio, confidence_ratio)
    offered = drift_of(blocks_of(figures, OFFERED), OFFERED, cycle, test)
    excuse = _excuse(offered, blocks_of(figures, OFFERED), minimum_ratio, confidence_ratio)
    return {
        name: replace(drift, doubt=excuse) if excuse and drift.found and not drift.metric.is_stock else drift
        for name, drift in drifts.items()
    }


def drift_of(blocks: Blocks, metric: Metric, cycle_seconds: float | None, test: TrendTest) -> Drift:
    """Return what became of one metric, before it is corrected for there being several."""
    there = np.isfinite(blocks.medians)
    total = int(there.sum())
    if total == 0:
        return Drift(metric, doubt="It was not measured.")
    level = float(np.median(blocks.medians[there]))
    known = Drift(metric, level, blocks_total=total, block_seconds=blocks.block_seconds)
    if total < LEAST_BLOCKS:
        return replace(known, doubt=f"Too short for a trend: {total} of the {LEAST_BLOCKS} blocks that it takes.")
    scale = _Scale.of(blocks.medians, level, metric)
    cycle_blocks = _cycle_blocks(blocks, cycle_seconds)
    kept, rest = without_cycle(scale.inside(blocks.medians), cycle_blocks)
    length = len(kept)
    change = theil_sen(kept) * length
    return replace(
        known,
        change_ratio=scale.ratio(change),
        slope_per_hour=scale.ratio(change) * level / (length * blocks.block_seconds / 3600),
        late_slope_per_hour=theil_sen(blocks.medians[length // 2 :]) * 3600 / blocks.block_seconds,
        plain_score=mann_kendall(kept),
        probability=trend_probability(kept, rest),
        detectable_ratio=detectable(rest, total, test.minimum_ratio, test.accident_ratio),
        correlation=rest.correlation,
        is_without_cycle=cycle_blocks > 0,
        shifts_hours=tuple(blocks.hours(block) for block in shifts(kept, rest, test.minimum_ratio)),
    )


def corrected(drifts: Mapping[str, Drift], minimum_ratio: float, confidence_ratio: float) -> dict[str, Drift]:
    """Return the drifts with Holm's probabilities, and say which of them are found."""
    judged = [name for name, drift in drifts.items() if drift.doubt is None]
    probabilities = holm(np.array([drifts[name].probability for name in judged])) if judged else np.array([])
    result = dict(drifts)
    for name, probability in zip(judged, probabilities.tolist(), strict=True):
        drift = drifts[name]
        found = probability <= 1 - confidence_ratio and abs(drift.change_ratio) >= minimum_ratio
        result[name] = replace(drift, probability=probability, found=found)
    return result


def detectable(rest: Rest, blocks: int, minimum_ratio: float, accident_ratio: float) -> float:
    """Return the change over the run that would be found in nine of ten runs with this noise.

    Parameters
    ----------
    rest : Rest
    blocks : int
    minimum_ratio : float
        Smaller changes are no drift.
    accident_ratio : float
        Probability below which a trend is believed.

    References
    ----------
    E. C. Weatherhead et al., J. Geophys. Res. 103 (1998) 17149, equations 2 and 3: a trend's standard error under
    AR(1); for a whole run of n blocks it is σ √(12/n) √((1+φ)/(1−φ)). `benchmarks/drift_detection.py` tests it.
    """
    from scipy.special import stdtrit  # type: ignore[import-untyped]  # noqa: PLC0415  (a third of a second)

    error = rest.deviation * math.sqrt(12 / blocks * rest.inflation)
    power = error * NormalDist().inv_cdf(_AIMED_POWER)
    needed = error * float(-stdtrit(rest.degrees, accident_ratio / 2)) + power
    return math.expm1(max(needed, math.log1p(minimum_ratio) + power))


@dataclass(frozen=True, slots=True)
class _Scale:
    """Logarithms where a change is a ratio; for stocks, and with zeros, differences relative to the level."""

    level: float
    is_logarithmic: bool

    @classmethod
    def of(cls, values: Series, level: float, metric: Metric) -> _Scale:
        return cls(level, not metric.is_stock and bool((values[np.isfinite(values)] > 0).all()))

    def inside(self, values: Series) -> Series:
        if self.is_logarithmic:
            return np.log(values)
        return values / abs(self.level) if self.level else values

    def ratio(self, change: float) -> float:
        return math.expm1(change) if self.is_logarithmic else change


def _cycle_blocks(blocks: Blocks, cycle_seconds: float | None) -> int:
    """Return the length of a cycle that the run covers at least twice, in blocks; 0 where there is none."""
    if cycle_seconds is None or len(blocks.medians) * blocks.block_seconds < LEAST_CYCLES * cycle_seconds:
        return 0
    length = cycle_seconds / blocks.block_seconds
    return round(length) if math.isclose(length, round(length), rel_tol=1e-6) and length >= 2 else 0


def _excuse(offered: Drift, blocks: Blocks, minimum_ratio: float, confidence_ratio: float) -> str | None:
    if offered.doubt is not None:
        return None
    significant = offered.probability <= 1 - confidence_ratio
    if significant and abs(offered.change_ratio) >= minimum_ratio:
        return f"The offered load itself changed by {offered.change_ratio * 100:+.0f} % over the run."
    spread = _spread(blocks.medians)
    if not offered.is_without_cycle and spread >= 2 * minimum_ratio:
        return (
            f"The offered load varied by {spread * 100:.0f} % and did not repeat itself twice, so that "
            "its changes cannot be told from a drift."
        )
    return None


def _spread(medians: Sequence[float] | Series) -> float:
    low, middle, high = np.nanquantile(medians, [0.1, 0.5, 0.9])
    return float((high - low) / middle) if middle > 0 else 0.0
