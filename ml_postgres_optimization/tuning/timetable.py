"""How the time of a budget is shared out: to trials, to the proof, and to each trial its part."""

from __future__ import annotations

import math

from ml_postgres_optimization.knobs.configuration import Change
from ml_postgres_optimization.trials import Deadline, Design, TrialPlan
from ml_postgres_optimization.tuning.laboratory import Laboratory
from ml_postgres_optimization.tuning.ledger import Budget, Ledger

PROOF_PAIRS = 10
_PROOF_SHARE = 1 / 3
_LARGEST_PROOF_SHARE = 1 / 2


class Timetable:
    """The time of one campaign.

    Parameters
    ----------
    laboratory : Laboratory
        Whose clock counts, and whose trials have shown how long the response takes to settle.
    plan : TrialPlan
        Of every trial.
    budget : Budget
        Begins now.
    """

    def __init__(self, laboratory: Laboratory, plan: TrialPlan, budget: Budget) -> None:
        self._laboratory = laboratory
        self._plan = plan
        self._budget = budget
        self.end_seconds = self._now() + budget.seconds

    @property
    def left_seconds(self) -> float:
        """What is left of it all."""
        return self._until(self.end_seconds)

    def left_for_trials_seconds(self, ledger: Ledger) -> float:
        """Return what is left for trials; the proof's time is theirs as long as there is nothing to prove."""
        return self._until(self._trials_end_seconds(ledger))

    def least_seconds(self, change: Change | None = None) -> float:
        """Return what a trial of `change` takes at least, or of any where none is given."""
        design = Design.SWITCHBACK if change is None else self._laboratory.design_of(change)
        return self._known_plan.seconds_for(self._plan.thresholds.min_pairs, change, design)

    def least_proof_seconds(self, ledger: Ledger) -> float:
        """Return what a proof that can show something takes at least."""
        change = Change(ledger.incumbent, ledger.initial)
        design = self._laboratory.design_of(change, may_divide=False)
        return self._known_plan.seconds_for(self._plan.thresholds.min_pairs, change, design)

    def deadline_of(self, ledger: Ledger, change: Change) -> Deadline:
        """Give a trial half of what is left for trials, or twice what it takes at least, whichever is more."""
        last_seconds = self._trials_end_seconds(ledger)
        fair_seconds = max(self._until(last_seconds) / 2, 2 * self.least_seconds(change))
        return self._in_consent(Deadline(last_seconds, self._now() + fair_seconds))

    @property
    def proof_deadline(self) -> Deadline:
        """The deadline of the proof: the end."""
        return self._in_consent(Deadline(self.end_seconds))

    def _in_consent(self, deadline: Deadline) -> Deadline:
        """Let no trial go on beyond the time in which the server's owner allows changes."""
        consent = self._laboratory.guard.consent
        allowed_seconds = math.inf if consent is None else self._now() + consent.seconds_left()
        return Deadline(min(deadline.last_seconds, allowed_seconds), deadline.fair_seconds)

    def _trials_end_seconds(self, ledger: Ledger) -> float:
        return self.end_seconds - (self._proof_seconds if ledger.promoted else 0.0)

    @property
    def _proof_seconds(self) -> float:
        """What is kept for the proof."""
        if not self._budget.prove:
            return 0.0
        plan, seconds = self._known_plan, self._budget.seconds
        # two pairs more than a verdict takes: the trial before may end one late, and blocks take a little longer
        least = plan.seconds_for(plan.thresholds.min_pairs + 2)
        wanted = min(plan.seconds_for(PROOF_PAIRS), max(least, seconds * _PROOF_SHARE))
        return min(wanted, seconds * _LARGEST_PROOF_SHARE)

    @property
    def _known_plan(self) -> TrialPlan:
        """The plan, with what trials have shown of how long the response takes to settle."""
        return self._laboratory.settling.applied_to(self._plan)

    def _until(self, monotonic_seconds: float) -> float:
        return max(0.0, monotonic_seconds - self._now())

    def _now(self) -> float:
        return self._laboratory.clock.monotonic_seconds()
