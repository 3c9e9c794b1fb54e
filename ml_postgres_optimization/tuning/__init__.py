"""Search for better configurations."""

from ml_postgres_optimization.tuning.controller import Controller
from ml_postgres_optimization.tuning.laboratory import Laboratory, open_study
from ml_postgres_optimization.tuning.ledger import Budget, Ledger
from ml_postgres_optimization.tuning.progress import Progress, Stage, described
from ml_postgres_optimization.tuning.proposing.drafting import Draft, ranked_by_model, rule_drafts
from ml_postgres_optimization.tuning.search import ForestSampler, SearchSpace, TrustRegion, TuningStudy
from ml_postgres_optimization.tuning.simulation import SimulationPlan, simulate
from ml_postgres_optimization.tuning.watching import Chronicle, ContinuousController, Pace

__all__ = [
    "Budget",
    "Chronicle",
    "ContinuousController",
    "Controller",
    "Draft",
    "ForestSampler",
    "Laboratory",
    "Ledger",
    "Pace",
    "Progress",
    "SearchSpace",
    "SimulationPlan",
    "Stage",
    "TrustRegion",
    "TuningStudy",
    "described",
    "open_study",
    "ranked_by_model",
    "rule_drafts",
    "simulate",
]
