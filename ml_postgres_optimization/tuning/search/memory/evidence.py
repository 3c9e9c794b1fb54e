"""What a study remembers of a trial."""

from __future__ import annotations

import math
from typing import Any

from ml_postgres_optimization.trials import Guards, Outcome, Trial
from ml_postgres_optimization.tuning.search.history import VIOLATION

CONFIGURATION = "configuration"
# The guards abort at twice the baseline's mean. Beyond 4.5 times it is all the same, and would only blind the forest
# to the differences that matter.
_ABORTED_LOG_RATIO = math.log(2.0)
_WORST_LOG_RATIO = 1.5
_GUARDS = Guards()


def tells_something(trial: Trial) -> bool:
    """Tell whether a pair could be compared, or a guard ended the trial."""
    return bool(trial.verdict.pairs) or trial.verdict.outcome is Outcome.ABORTED


def log_ratio(trial: Trial) -> float:
    """Return the log of the estimated ratio; an aborted trial counts as bad, however its pairs had looked."""
    ratio = trial.verdict.ratio
    known = math.log(ratio) if math.isfinite(ratio) and ratio > 0 else _WORST_LOG_RATIO
    least = _ABORTED_LOG_RATIO if trial.verdict.outcome is Outcome.ABORTED else -math.inf
    return min(max(known, least), _WORST_LOG_RATIO)


def facts_of(trial: Trial) -> dict[str, Any]:
    """Return what is kept of it beside its value."""
    verdict = trial.verdict
    return {
        CONFIGURATION: trial.proposal.configuration.id,
        "trial": trial.id,
        "origin": trial.proposal.origin,
        "outcome": str(verdict.outcome),
        "pairs": len(verdict.pairs),
        "ratio": verdict.ratio,
        "ratio_low": verdict.ratio_low,
        VIOLATION: _violation(trial),
    }


def _violation(trial: Trial) -> float:
    """Return how far a trial went towards what the guards forbid: 1 where they ended it, else its share of errors."""
    if trial.verdict.outcome is Outcome.ABORTED:
        return 1.0
    more = trial.figures.get("candidate_error_ratio", 0.0) - trial.figures.get("baseline_error_ratio", 0.0)
    return min(1.0, max(0.0, more / _GUARDS.error_ratio)) if math.isfinite(more) else 0.0
