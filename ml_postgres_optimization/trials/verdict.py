"""When a trial is decided, and when it must stop at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ml_postgres_optimization.telemetry import Window
from ml_postgres_optimization.trials.objective import (
    coverage_ratio,
    finished_per_second,
    mean_seconds_like,
    mix_of,
    response_with_mix,
)
from ml_postgres_optimization.trials.proposal import Outcome
from ml_postgres_optimization.trials.sequential import PairedTest

# Of ten expected by chance, none comes once in 20,000 blocks (Poisson); of three, once in 20.
_FEW = 10


@dataclass(frozen=True, slots=True)
class Guards:
    """How much worse than the worst baseline block a candidate's block may be before the trial is aborted.

    Parameters
    ----------
    mean_ratio, p99_ratio : float
        Of the mean and of the 99th percentile of the response time; infinite where there is no limit.
    median_ratio : float
        A block that is too slow by mean or 99th percentile, while its median is no worse than this, was hit by a
        stall, which may have come from elsewhere: it takes a second one.
    error_ratio, skipped_ratio : float
        Failed and never started operations, as shares of all, above those of the baseline.
    finished_ratio : float
        Share of the baseline's operations per second that must finish at least; zero where there is no limit. Nothing
        finished has no response time, and would breach no other limit.
    coverage_ratio : float
        On sessions that are not ours: queries that were not seen to finish, as a share of the execution time in the
        reference block, above that of the baseline. It takes two such blocks, since a query may just not have come.
    memory_ratio, memory_seconds : float
        Share of the memory that was left at the trial's start that must be left at least, and how long it must last
        at the pace at which it goes; zero where there is no limit. At a half, a second fall like the first would use
        up the rest; 20 s are time to look again and to put the baseline back (`MemoryWatch`). Seen on the server's
        own machine only.
    part_ratio : float
        How many times as long a single kind of operation, or a single query, may take: beyond, the candidate is
        rejected however fast the rest is; infinite where there is no limit. It is judged over all pairs (`Parts`).
        What one part may lose for the good of the whole is a judgement: a plan that turns costs factors.

    Notes
    -----
    The limits are outside of what blocks of equal arms differ by on a calm machine: some 30 % in the mean, some
    2 times in the tail (own measurement on two cores). Where test suites ran beside it, though, single blocks took 10
    times as long, and half of eight equal candidates were aborted before stalls were told apart.

    Rare queries make the coverage differ between equal arms. With 20 to 1,000 queries in Zipf's proportions, 50 to
    5,000 calls in a block and lognormal times, a limit of 0.2 that takes two blocks aborts up to 5 % of equal
    candidates in 30 pairs, one of 0.1 up to 16 %, or 45 % if it took one block (own simulation).
    """

    mean_ratio: float = 2.0
    p99_ratio: float = 3.0
    median_ratio: float = 1.5
    error_ratio: float = 0.01
    skipped_ratio: float = 0.05
    finished_ratio: float = 0.1
    coverage_ratio: float = 0.2
    memory_ratio: float = 0.5
    memory_seconds: float = 20.0
    part_ratio: float = 1.5


NO_GUARDS = Guards(
    mean_ratio=math.inf,
    p99_ratio=math.inf,
    median_ratio=math.inf,
    error_ratio=math.inf,
    skipped_ratio=math.inf,
    finished_ratio=0.0,
    coverage_ratio=math.inf,
    memory_ratio=0.0,
    memory_seconds=0.0,
    part_ratio=math.inf,
)
_LESS_IS_WORSE = ("finished_per_second", "coverage_ratio")


@dataclass(frozen=True, slots=True)
class Health:
    """The figures of a block that the guards look at; NaN for what is not seen, or means nothing."""

    seconds: float
    mean_seconds: float
    p99_seconds: float
    median_seconds: float
    error_ratio: float
    skipped_ratio: float
    finished_per_second: float
    coverage_ratio: float

    @classmethod
    def of(cls, window: Window, *, reference: Window) -> Health:
        """Read them from `window`, in the mix of `reference`; NaN, which breaches nothing, for what is not seen."""
        due = window.due_total
        are_ours = bool(reference.operations_total or window.operations_total)
        response = response_with_mix(window, mix_of(reference))
        return cls(
            seconds=window.duration_seconds,
            mean_seconds=mean_seconds_like(reference, window),
            p99_seconds=response.quantile_seconds(0.99),
            median_seconds=response.quantile_seconds(0.5),
            error_ratio=window.error_ratio,
            skipped_ratio=window.skipped_total / due if due else 0.0,
            finished_per_second=finished_per_second(window, are_ours=are_ours),
            coverage_ratio=math.nan if are_ours else coverage_ratio(window.statements, reference),
        )

    def worst(self, other: Health) -> Health:
        """Return the worse of each figure, NaN giving way to a number."""
        worst = {
            name: float((np.fmin if name in _LESS_IS_WORSE else np.fmax)(getattr(self, name), getattr(other, name)))
            for name in self.__slots__
        }
        return Health(**worst)


@dataclass(frozen=True, slots=True)
class Breach:
    """What a guard has to say of a block.

    Parameters
    ----------
    reason : str
        A sentence for the user.
    may_be_a_stall : bool
        Whether something else may be to blame: most operations took no longer than usual, or what is missing may
        just not have come.
    """

    reason: str
    may_be_a_stall: bool = False


def breach(candidate: Health, baseline: Health, guards: Guards) -> Breach | None:
    """Return why the candidate should stop at once; None while it may go on.

    Parameters
    ----------
    candidate : Health
        Of its latest block.
    baseline : Health
        The worst of all baseline blocks so far.
    guards : Guards
    """
    if candidate.error_ratio > guards.error_ratio + baseline.error_ratio:
        return Breach(_more("failed", candidate.error_ratio, baseline.error_ratio, guards.error_ratio))
    if candidate.skipped_ratio > guards.skipped_ratio + baseline.skipped_ratio:
        return Breach(_more("were skipped", candidate.skipped_ratio, baseline.skipped_ratio, guards.skipped_ratio))
    if candidate.finished_per_second < guards.finished_ratio * baseline.finished_per_second:
        expected = baseline.finished_per_second * candidate.seconds
        return Breach(_fewer(candidate, baseline, guards), may_be_a_stall=expected < _FEW)
    return _breach_of_time(candidate, baseline, guards) or _breach_of_coverage(candidate, baseline, guards)


def _breach_of_time(candidate: Health, baseline: Health, guards: Guards) -> Breach | None:
    # a median that is not seen clears nobody
    may_be_a_stall = candidate.median_seconds <= guards.median_ratio * baseline.median_seconds
    if candidate.mean_seconds > guards.mean_ratio * baseline.mean_seconds:
        reason = _longer("mean response", candidate.mean_seconds, baseline.mean_seconds, guards.mean_ratio)
        return Breach(reason, may_be_a_stall)
    if candidate.p99_seconds > guards.p99_ratio * baseline.p99_seconds:
        reason = _longer("99th percentile", candidate.p99_seconds, baseline.p99_seconds, guards.p99_ratio)
        return Breach(reason, may_be_a_stall)
    return None


def _breach_of_coverage(candidate: Health, baseline: Health, guards: Guards) -> Breach | None:
    if not candidate.coverage_ratio < baseline.coverage_ratio - guards.coverage_ratio:
        return None
    reason = (
        f"queries that took {1 - candidate.coverage_ratio:.0%} of the time in the first block did not finish, "
        f"against {1 - baseline.coverage_ratio:.0%} in the worst baseline block, "
        f"the limit being {guards.coverage_ratio:.0%} more"
    )
    return Breach(reason, may_be_a_stall=True)


def _fewer(candidate: Health, baseline: Health, guards: Guards) -> str:
    return (
        f"{candidate.finished_per_second:.3g} operations finished per second, against "
        f"{baseline.finished_per_second:.3g} in the worst baseline block, "
        f"the limit being {guards.finished_ratio:.0%} of that"
    )


def _longer(what: str, seen_seconds: float, worst_seconds: float, limit: float) -> str:
    return (
        f"{what} of {seen_seconds * 1000:.2f} ms against {worst_seconds * 1000:.2f} ms in the worst baseline block, "
        f"the limit being {limit:g} times"
    )


def _more(what: str, seen: float, worst: float, limit: float) -> str:
    return (
        f"{seen:.1%} of the operations {what}, against {worst:.1%} in the worst baseline block, "
        f"the limit being {limit:.1%} more"
    )


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What it takes to decide.

    Parameters
    ----------
    min_pairs : int
        No verdict before (an abort excepted). At α = 0.05 the test itself needs 6.
    equivalence_ratio : float
        Within 1 ± this, nothing is gained that would be worth a change: the older configuration stays.
    futility_alpha : float or None
        A candidate is given up once a gain worth a change is refuted with this probability of error; it promotes
        nothing, so it may be generous. At 0.3, under 10 % noise, a candidate that is 5 % worse goes after 15 pairs
        instead of 73, and none of 80 that were 10 % better was lost (own simulation). None never gives up.
    """

    min_pairs: int = 6
    equivalence_ratio: float = 0.02
    futility_alpha: float | None = 0.3


@dataclass(frozen=True, slots=True)
class Decision:
    """An outcome and, in a sentence, what it rests on."""

    outcome: Outcome
    reason: str


def decide(test: PairedTest, thresholds: Thresholds) -> Decision | None:
    """Return the outcome as soon as the evidence allows one, None while it does not."""
    if len(test) < thresholds.min_pairs:
        return None
    margin = thresholds.equivalence_ratio
    if test.is_above(1 - margin) and test.is_below(1 + margin):
        return Decision(
            Outcome.EQUIVALENT, f"the whole interval lies within {margin:.0%} of 1: what is in force stays"
        )
    if test.is_below(1):
        return Decision(Outcome.PROMOTED, "the whole interval lies below 1")
    if test.is_above(1):
        return Decision(Outcome.REJECTED, "the whole interval lies above 1")
    if thresholds.futility_alpha is not None and test.is_probably_above(1 - margin, thresholds.futility_alpha):
        return Decision(Outcome.REJECTED, f"a gain of {margin:.0%} or more is unlikely by now")
    return None
