"""What is worth a trial, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.models.observation import Prediction
from ml_postgres_optimization.trials.objective import Measure


class Arm(StrEnum):
    """Which configuration a block runs on."""

    BASELINE = "baseline"
    CANDIDATE = "candidate"


class Design(StrEnum):
    """How the two blocks of a pair lie to each other: one after the other, side by side, or after a restart each."""

    SWITCHBACK = "switchback"
    CONCURRENT = "concurrent"
    RESTART = "restart"


class Outcome(StrEnum):
    """How a trial ended: ``promoted`` is proven, ``preferred`` what a search goes on with, unproven."""

    PROMOTED = "promoted"
    PREFERRED = "preferred"
    REJECTED = "rejected"
    EQUIVALENT = "equivalent"
    UNDECIDED = "undecided"
    ABORTED = "aborted"

    @property
    def stays(self) -> bool:
        """Whether the candidate takes the baseline's place."""
        return self in {Outcome.PROMOTED, Outcome.PREFERRED}


@dataclass(frozen=True, slots=True)
class Proposal:
    """A configuration worth a trial, the prediction, and why.

    Parameters
    ----------
    configuration : Configuration
    origin : str
        Who or what proposed it: ``rules``, ``symptom``, ``forest``, ``search`` (all that an offline search went on
        with), ``proof`` (the initial configuration, against all that was promoted), ``memory``, ``re-proof``,
        ``user``.
    reason : str
        A sentence for the user.
    prediction : Prediction or None
        Predicted ratio of the candidate's objective to the baseline's; below 1 is better.
    """

    configuration: Configuration
    origin: str
    reason: str
    prediction: Prediction | None = None


class Interval(NamedTuple):
    """Candidate over baseline: the estimate, and what it lies between."""

    ratio: float
    low: float
    high: float

    @property
    def inverted(self) -> Interval:
        """Baseline over candidate."""
        return Interval(1 / self.ratio, 1 / self.high, 1 / self.low if self.low else math.inf)


@dataclass(frozen=True, slots=True)
class PartEffect:
    """What a candidate did to one part of the load.

    Parameters
    ----------
    part : str
        A kind of our operations, or ``query`` and its queryid.
    share : float
        Of the load's time on the baseline that was this part's.
    ratio : Interval
        Candidate over baseline, of its mean response; on sessions that are not ours, of its mean execution time.
    """

    part: str
    share: float
    ratio: Interval


@dataclass(frozen=True, slots=True)
class Pair:
    """One block of each arm, next to each other in time, in random order.

    Parameters
    ----------
    baseline_seconds, candidate_seconds : float
        The objective in each, with the same mix of kinds.
    candidate_first : bool
    """

    baseline_seconds: float
    candidate_seconds: float
    candidate_first: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of a trial, and the evidence.

    Parameters
    ----------
    outcome : Outcome
    ratio, ratio_low, ratio_high : float
        Candidate over baseline, with an interval that holds at every moment of looking; below 1 is faster.
    pairs : tuple of Pair
    reason : str
        A sentence for the user.
    """

    outcome: Outcome
    ratio: float
    ratio_low: float
    ratio_high: float
    pairs: tuple[Pair, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Trial:
    """A proposal that was tried against a baseline.

    Parameters
    ----------
    id : str
        Sorts by time; unique for the server.
    baseline : Configuration
    proposal : Proposal
    verdict : Verdict
    started_at, ended_at : datetime
    figures : mapping of str to float
        ``baseline_mean_seconds``, ``candidate_p99_seconds``, … over all of its blocks.
    effects : mapping of Measure to Interval
        Candidate over baseline by every measure that could be seen, from the same pairs; only the objective's is
        what the verdict rests on.
    design : Design
    slower : tuple of PartEffect
        Kinds of operations, or queries, that are proven to be slower under the candidate.
    """

    id: str
    baseline: Configuration
    proposal: Proposal
    verdict: Verdict
    started_at: datetime
    ended_at: datetime
    figures: Mapping[str, float] = field(default_factory=dict)
    effects: Mapping[Measure, Interval] = field(default_factory=dict)
    design: Design = Design.SWITCHBACK
    slower: tuple[PartEffect, ...] = ()
