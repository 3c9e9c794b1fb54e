"""What the blocks of all arms show: improvement, errors, and whether the specification's targets are met."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from ml_postgres_optimization.comparison.arm import BASE, OPTIMISED, Arm
from ml_postgres_optimization.comparison.ledger import Key
from ml_postgres_optimization.comparison.measuring.figures import BlockFigures
from ml_postgres_optimization.trials import Interval

_CONFIDENCE = 0.95
_FEWEST_PAIRS = 2


class Finding(StrEnum):
    """Whether a target is met."""

    MET = "met"
    """So is the end of the 95 % interval that lies farther from it."""
    UNDECIDED = "met, not proven"
    """The estimate meets it, and the interval does not."""
    MISSED = "NOT MET"


@dataclass(frozen=True, slots=True)
class Target:
    """What the specification asks of one level: mission rows 16 and 17.

    Parameters
    ----------
    mean_seconds : float
        The mean response must be below it,
    mean_ratio : float or None
        and below this share of base's; None where nothing is asked of it.
    needs_both : bool
        Whether both of these must hold; otherwise one of them is enough.
    error_ratio : float or None
        The share of operations that fail must be below it.
    """

    mean_seconds: float
    mean_ratio: float | None = None
    error_ratio: float | None = None
    needs_both: bool = True


TARGETS: Mapping[str, Target] = {
    "BASIC": Target(0.003),
    "MEDIUM": Target(0.0005, 0.35, 1 / 5_000, needs_both=False),
    "HIGH": Target(0.002, 0.40, 10 / 10_000),
    "EXTREME": Target(0.0025, 0.55, 5 / 10_000),
}


@dataclass(frozen=True, slots=True)
class ArmSeen:
    """One arm at one level, over all of its blocks.

    Parameters
    ----------
    arm : Arm
    whole : BlockFigures
        All blocks as one.
    mean_seconds : Interval
        The mean response: of all operations, and a 95 % interval from its blocks' means.
    error_ratio : Interval
        Likewise of the share that was not served.
    improvement : Interval
        Mean response over base's, paired by rounds: the geometric mean of the rounds' ratios; of base itself 1.
    """

    arm: Arm
    whole: BlockFigures
    mean_seconds: Interval
    error_ratio: Interval
    improvement: Interval


@dataclass(frozen=True, slots=True)
class LevelSeen:
    """One level: its arms, and whether its targets are met."""

    name: str
    arms: Mapping[str, ArmSeen]
    target: Target
    latency: Finding
    errors: Finding | None

    @property
    def reference(self) -> ArmSeen:
        """Base, with which all others are compared."""
        return self.arms[BASE.name]

    @property
    def optimised(self) -> ArmSeen:
        """All parts together."""
        return self.arms[OPTIMISED.name]

    @property
    def is_met(self) -> bool:
        """Whether both targets are met."""
        return self.latency is Finding.MET and self.errors in (None, Finding.MET)


def judged(blocks: Mapping[Key, BlockFigures], levels: Iterable[str], arms: Sequence[Arm]) -> list[LevelSeen]:
    """Judge complete rounds, level by level."""
    return [_level(name, {arm: _rounds(blocks, name, arm) for arm in arms}) for name in levels]


def _rounds(blocks: Mapping[Key, BlockFigures], level: str, arm: Arm) -> list[BlockFigures]:
    return [figures for (_, name, of), figures in sorted(blocks.items()) if (name, of) == (level, arm.name)]


def _level(name: str, rounds: Mapping[Arm, Sequence[BlockFigures]]) -> LevelSeen:
    base = rounds[BASE]
    seen = {arm.name: _arm(arm, measured, base) for arm, measured in rounds.items()}
    target, optimised = TARGETS[name], seen[OPTIMISED.name]
    errors = None if target.error_ratio is None else below(optimised.error_ratio, target.error_ratio)
    ways = [below(optimised.mean_seconds, target.mean_seconds)]
    if target.mean_ratio is not None:
        ways.append(below(optimised.improvement, target.mean_ratio))
    latency = (max if target.needs_both else min)(ways, key=list(Finding).index)
    if optimised.whole.skipped_total:  # whose response nobody knows: those that waited longest are not in the mean
        latency = Finding.MISSED
    return LevelSeen(name, seen, target, latency, errors)


def below(found: Interval, limit: float) -> Finding:
    """Tell whether what was found is below a limit.

    Examples
    --------
    >>> [below(Interval(ratio, 0.3, 0.55), limit).value for ratio, limit in ((0.4, 0.6), (0.4, 0.5), (0.4, 0.35))]
    ['met', 'met, not proven', 'NOT MET']
    """
    if not found.ratio < limit:
        return Finding.MISSED
    return Finding.MET if found.high < limit else Finding.UNDECIDED


def _arm(arm: Arm, measured: Sequence[BlockFigures], base: Sequence[BlockFigures]) -> ArmSeen:
    whole = sum(measured[1:], measured[0])
    means = [one.response.mean_seconds for one in measured]
    pairs = [
        math.log(ours / theirs)
        for ours, theirs in zip(means, (one.response.mean_seconds for one in base), strict=True)
    ]
    return ArmSeen(
        arm,
        whole,
        _around(whole.response.mean_seconds, means),
        error_interval(measured),
        Interval(1.0, 1.0, 1.0) if arm == BASE else _spread(pairs),
    )


def _around(mean: float, values: Sequence[float]) -> Interval:
    """Return a mean with Student's interval by what its blocks' means differ; open where there are too few."""
    if len(values) < _FEWEST_PAIRS:
        return Interval(mean, 0.0, math.inf)
    half = _student(len(values)) * statistics.stdev(values) / math.sqrt(len(values))
    return Interval(mean, max(0.0, mean - half), mean + half)


def _spread(logarithms: Sequence[float]) -> Interval:
    """Return the geometric mean with Student's interval; open where there are too few values for one.

    The number of rounds is fixed beforehand, and nobody decides by looking: the ordinary interval holds.
    """
    center = statistics.fmean(logarithms)
    if len(logarithms) < _FEWEST_PAIRS or not math.isfinite(center):
        return Interval(math.exp(center), 0.0, math.inf)
    half = _student(len(logarithms)) * statistics.stdev(logarithms) / math.sqrt(len(logarithms))
    return Interval(*(math.exp(center + step) for step in (0.0, -half, half)))


def error_interval(measured: Sequence[BlockFigures]) -> Interval:
    """Return the share of operations that were not served, with a 95 % interval.

    The wider of two: errors come in clusters, a lock that is held makes several, so that single operations are no
    independent draws, and the blocks' own spread counts; while of blocks without any error only the number of
    operations tells how often there could have been one.

    References
    ----------
    C. Clopper, E. Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial",
    Biometrika 26, 1934.
    """
    whole = sum(measured[1:], measured[0])
    if not whole.operations_total:
        return Interval(math.nan, 0.0, 1.0)
    low, high = _clopper_pearson(whole.failed_total, whole.operations_total)
    if len(measured) >= _FEWEST_PAIRS:
        ratios = [one.error_ratio for one in measured]
        half = _student(len(ratios)) * statistics.stdev(ratios) / math.sqrt(len(ratios))
        low, high = min(low, max(0.0, whole.error_ratio - half)), max(high, whole.error_ratio + half)
    return Interval(whole.error_ratio, low, high)


def _clopper_pearson(failed: int, operations: int) -> tuple[float, float]:
    from scipy.special import betaincinv  # type: ignore[import-untyped]  # noqa: PLC0415  (a third of a second)

    tail = (1.0 - _CONFIDENCE) / 2
    low = float(betaincinv(failed, operations - failed + 1, tail)) if failed else 0.0
    high = float(betaincinv(failed + 1, operations - failed, 1.0 - tail)) if failed < operations else 1.0
    return low, high


def _student(count: int) -> float:
    """Return by how many standard errors the interval of a mean of `count` values reaches to either side."""
    from scipy.special import stdtrit  # noqa: PLC0415  (as above)

    return float(stdtrit(count - 1, 0.5 + _CONFIDENCE / 2))
