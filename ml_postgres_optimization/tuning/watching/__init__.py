"""Optimise for as long as a server runs: watch, forecast, decide, and at most one trial at a time."""

from ml_postgres_optimization.tuning.watching.change import ChangeDetector, Departure, LastingChange, Patience
from ml_postgres_optimization.tuning.watching.chronicle import Chronicle
from ml_postgres_optimization.tuning.watching.continuous import ContinuousController
from ml_postgres_optimization.tuning.watching.era import Pace
from ml_postgres_optimization.tuning.watching.forecast import LimitWatch, Outlook, Threat, trend
from ml_postgres_optimization.tuning.watching.memory import KnownLoad, LoadMemory
from ml_postgres_optimization.tuning.watching.reading import Reading
from ml_postgres_optimization.tuning.watching.usual import Band, Profile

__all__ = [
    "Band",
    "ChangeDetector",
    "Chronicle",
    "ContinuousController",
    "Departure",
    "KnownLoad",
    "LastingChange",
    "LimitWatch",
    "LoadMemory",
    "Outlook",
    "Pace",
    "Patience",
    "Profile",
    "Reading",
    "Threat",
    "trend",
]
