"""How a continuous run goes on in time: its pace, and the era since something became different."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.trials import Measure
from ml_postgres_optimization.tuning.controller import Controller
from ml_postgres_optimization.tuning.ledger import Ledger
from ml_postgres_optimization.tuning.proposing.drafting import Draft
from ml_postgres_optimization.tuning.watching.change import ChangeDetector, LastingChange, Patience
from ml_postgres_optimization.tuning.watching.reading import Reading


@dataclass(frozen=True, slots=True)
class Pace:
    """How often to look, and how seldom to act.

    Parameters
    ----------
    window_seconds : float
    learning_windows : int
        That tell what is usual; nothing is woken by a change before.
    campaign_seconds : float
        Of one campaign at most; half of what is left, where the run has an end.
    patience : int
        Of a campaign, as in `Budget`.
    rest_seconds : float
        From the end of a campaign to the next, whatever changes.
    attempts : int
        Trials in a row that may come to nothing while the objective is threatened; after the drafts.
    changes : Patience
        How long a change must last.
    """

    window_seconds: float = 10.0
    learning_windows: int = 12
    campaign_seconds: float = 3600.0
    patience: int = 10
    rest_seconds: float = 900.0
    attempts: int = 3
    changes: Patience = field(default_factory=Patience)


@dataclass(slots=True)
class Era:
    """The time since the last campaign, or since what is in force changed.

    Parameters
    ----------
    load : str
        Name of the load that runs.
    controller : Controller
        With the study of that load.
    before : sequence of Reading
        What was seen before the campaign.
    expected_seconds : float
        The longest response that is expected of what is in force.
    previous : Configuration or None
        What was in force before the last promotion.
    tried : set of Configuration
    failures : int
        Trials in a row that came to nothing.
    is_advised, is_delayed : bool
        Whether the user has been told that.
    readings : list of Reading
        Of which what is usual is learned.
    detector : ChangeDetector or None
        Once it is.
    missed : LastingChange or None
        One that has not been answered yet.
    """

    load: str
    controller: Controller
    before: Sequence[Reading]
    expected_seconds: float = math.inf
    previous: Configuration | None = None
    tried: set[Configuration] = field(default_factory=set)
    failures: int = 0
    is_advised: bool = False
    is_delayed: bool = False
    readings: list[Reading] = field(default_factory=list)
    detector: ChangeDetector | None = None
    missed: LastingChange | None = None


def tried_in(ledger: Ledger) -> set[Configuration]:
    """Return what was on trial."""
    return {trial.proposal.configuration for trial in ledger.trials}


def refused_in(ledger: Ledger, drafts: Sequence[Draft], incumbent: Configuration) -> set[Configuration]:
    """Return the drafts that came before the one that was tried: a guard refused them."""
    wanted = (incumbent.replaced(draft.values(incumbent)) for draft in drafts)
    tried = tried_in(ledger)
    return set(takewhile(lambda configuration: configuration not in tried, wanted))


def expected_seconds(ledger: Ledger, measure: Measure) -> float:
    """Return the longest response that the proof, or the trial, lets one expect of what is in force."""
    comparison = ledger.comparison
    if comparison is None or measure not in comparison.initial_seconds:
        return math.inf
    return comparison.initial_seconds[measure] * comparison.ratios[measure].high
