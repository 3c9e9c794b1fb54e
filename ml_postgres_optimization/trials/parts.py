"""What a candidate does to single parts of the load: to one kind of operation of ours, or to one query."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ml_postgres_optimization.telemetry import StatementKey, Window
from ml_postgres_optimization.trials.proposal import Arm, Pair, PartEffect
from ml_postgres_optimization.trials.sequential import PairedTest

# A kind of operation, or a query.
Part = str | StatementKey

# A part matters where what it loses is more than this share of the time of the whole load.
_LEAST_EXCESS = 0.005
# What all parts together may hold a promotion up with by chance; it costs time, and promotes nothing.
_SUSPECT_ALPHA = 0.3
# That a part ended under the baseline alone is no chance any more where a coin would have had to fall the same way
# twelve times. Parts below this share of the time may do so.
_CHANCE = 2.0**-12
_LEAST_SHARE = 0.02


@dataclass(slots=True)
class _Work:
    """What a part did in the blocks of an arm."""

    finished: int = 0
    seconds: float = 0.0

    def add(self, finished: int, seconds: float) -> None:
        self.finished += finished
        self.seconds += seconds

    @property
    def mean_seconds(self) -> float:
        return self.seconds / self.finished if self.finished else math.nan


class Endings:
    """What ended in the blocks of each arm, part by part."""

    def __init__(self) -> None:
        self._works: dict[Arm, dict[Part, _Work]] = {arm: {} for arm in Arm}
        self._measured_seconds = dict.fromkeys(Arm, 0.0)
        self._seconds = dict.fromkeys(Arm, 0.0)

    @property
    def baseline_seconds(self) -> float:
        """The time that all parts took in the baseline's blocks."""
        return self._seconds[Arm.BASELINE]

    def add(self, arm: Arm, window: Window) -> None:
        """Take a block of `arm`."""
        self._measured_seconds[arm] += window.duration_seconds
        for part, (finished, seconds) in _parts_of(window):
            self._works[arm].setdefault(part, _Work()).add(finished, seconds)
            self._seconds[arm] += seconds

    def gone(self, chance: float = _CHANCE) -> str | None:
        """Say which kind of operation of ours ends under the baseline only; None where there is none.

        It may take longer than a block under the candidate: it is in no comparison then, and what is compared looks
        the faster for it. Sessions of others need not send what they sent before.

        Parameters
        ----------
        chance : float
            That of missing it under an equal candidate: what is likelier is not told.
        """
        baseline, candidate = (self._works[arm] for arm in (Arm.BASELINE, Arm.CANDIDATE))
        ours = (part for part in baseline.keys() - candidate.keys() if isinstance(part, str))
        gone = next((part for part in sorted(ours) if self._is_no_chance(baseline[part], chance)), None)
        return gone and f"not one {gone} ended in the candidate's blocks, as if it took for ever"

    def _is_no_chance(self, work: _Work, chance: float) -> bool:
        of_baseline = self._measured_seconds[Arm.BASELINE] / sum(self._measured_seconds.values())
        return of_baseline**work.finished <= chance and work.seconds >= _LEAST_SHARE * self.baseline_seconds


class Parts:
    """Compare each part of the load for itself, in the pairs in which both arms have it.

    A candidate that makes the whole faster may have made one query slow: a plan that turned. Each part has a paired
    test of its own. As there are many, a part needs as much more evidence as there are others (Bonferroni), and what
    it loses must be worth the name, half a percent of the load's time.

    Parameters
    ----------
    limit_ratio : float
        A part that takes more than this many times as long vetoes the candidate; infinite for no veto.
    alpha : float
        Probability that any part is reported that is not slower. That any has a veto that should not is little more:
        at each look it is shared among the parts seen so far, and rare ones come late.
    """

    def __init__(self, *, limit_ratio: float, alpha: float) -> None:
        self._limit_ratio = limit_ratio
        self._alpha = alpha
        self._tests: dict[Part, PairedTest] = {}
        self._work: dict[tuple[Arm, Part], _Work] = {}
        self._endings = Endings()

    def add(self, windows: Mapping[Arm, Window], *, candidate_first: bool) -> None:
        """Take the parts that both arms of a pair have into the evidence."""
        seen = {arm: dict(_parts_of(window)) for arm, window in windows.items()}
        for arm, window in windows.items():
            self._endings.add(arm, window)
        for part in seen[Arm.BASELINE].keys() & seen[Arm.CANDIDATE].keys():
            means = {}
            for arm, parts in seen.items():
                finished, seconds = parts[part]
                self._work.setdefault((arm, part), _Work()).add(finished, seconds)
                means[arm] = seconds / finished
            pair = Pair(means[Arm.BASELINE], means[Arm.CANDIDATE], candidate_first)
            self._tests.setdefault(part, PairedTest(alpha=self._alpha)).add(pair)

    def slower(self) -> tuple[PartEffect, ...]:
        """Return the parts that the candidate is proven to have made slower, the greatest loss first."""
        proven = self._proven_above(1.0, self._alpha)
        return tuple(self._effect(part) for part in sorted(proven, key=self._excess, reverse=True))

    def veto(self) -> PartEffect | None:
        """Return the part that is proven to take longer than the limit allows; None where there is none."""
        if math.isinf(self._limit_ratio):
            return None
        proven = self._proven_above(self._limit_ratio, self._alpha)
        return self._effect(max(proven, key=self._excess)) if proven else None

    def gone(self) -> str | None:
        """Say which kind of operation of ours ends under the baseline only, so that no pair compares it."""
        return None if math.isinf(self._limit_ratio) else self._endings.gone()

    def suspect(self) -> PartEffect | None:
        """Return the part that is probably slower, and by what was seen so far beyond the limit, though unproven."""
        if math.isinf(self._limit_ratio):
            return None
        effects = (self._effect(part) for part in self._proven_above(1.0, _SUSPECT_ALPHA))
        return next((effect for effect in effects if effect.ratio.ratio > self._limit_ratio), None)

    def _proven_above(self, ratio: float, alpha: float) -> list[Part]:
        each = alpha / max(1, len(self._tests))
        return [part for part in self._losers() if self._tests[part].is_probably_above(ratio, each)]

    def _losers(self) -> Iterator[Part]:
        return (part for part in self._tests if self._excess(part) > _LEAST_EXCESS)

    def _excess(self, part: Part) -> float:
        """What the part loses, as a share of the load's time on the baseline."""
        baseline, candidate = self._work[Arm.BASELINE, part], self._work[Arm.CANDIDATE, part]
        lost_seconds = (candidate.mean_seconds - baseline.mean_seconds) * baseline.finished
        return lost_seconds / self._endings.baseline_seconds

    def _effect(self, part: Part) -> PartEffect:
        share = self._work[Arm.BASELINE, part].seconds / self._endings.baseline_seconds
        name = part if isinstance(part, str) else f"query {part[0]}"
        return PartEffect(name, share, self._tests[part].interval())


def _parts_of(window: Window) -> Iterator[tuple[Part, tuple[int, float]]]:
    """Yield each part that ended in `window`: how often, and the seconds that it took in all; none that took none."""
    for kind, operation in window.operations.items():
        total, mean_seconds = operation.response.total, operation.response.mean_seconds
        # of nothing the mean is not a number
        if total and mean_seconds > 0:
            yield kind, (total, total * mean_seconds)
    if window.operations:
        return
    for key, counters in window.statements.items():
        if counters.calls_total > 0 and counters.execution_seconds_total > 0:
            yield key, (counters.calls_total, counters.execution_seconds_total)
