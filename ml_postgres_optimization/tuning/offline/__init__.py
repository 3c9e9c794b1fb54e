"""Tune a server that nobody relies on meanwhile: search fast, and prove what was found."""

from ml_postgres_optimization.tuning.offline.ladder import Ladder
from ml_postgres_optimization.tuning.offline.offline_tuner import OfflineTuner
from ml_postgres_optimization.tuning.offline.screening import Noise, Screening, Seen
from ml_postgres_optimization.tuning.offline.tuned import Tuned

__all__ = ["Ladder", "Noise", "OfflineTuner", "Screening", "Seen", "Tuned"]
