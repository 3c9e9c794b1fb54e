"""Trials that can be believed: design, sequential test, verdict."""

from ml_postgres_optimization.trials.arena import Arena, Load, ServerArena, drain
from ml_postgres_optimization.trials.design import Arm, TrialPlan
from ml_postgres_optimization.trials.objective import Measure, mix_of, paired_objective, response_with_mix
from ml_postgres_optimization.trials.proposal import Interval, Outcome, Pair, Proposal, Trial, Verdict
from ml_postgres_optimization.trials.sequential import PairedTest
from ml_postgres_optimization.trials.trial import OnPair, run_trial
from ml_postgres_optimization.trials.verdict import (
    NO_GUARDS,
    Breach,
    Decision,
    Guards,
    Health,
    Thresholds,
    breach,
    decide,
)

__all__ = [
    "NO_GUARDS",
    "Arena",
    "Arm",
    "Breach",
    "Decision",
    "Guards",
    "Health",
    "Interval",
    "Load",
    "Measure",
    "OnPair",
    "Outcome",
    "Pair",
    "PairedTest",
    "Proposal",
    "ServerArena",
    "Thresholds",
    "Trial",
    "TrialPlan",
    "Verdict",
    "breach",
    "decide",
    "drain",
    "mix_of",
    "paired_objective",
    "response_with_mix",
    "run_trial",
]
