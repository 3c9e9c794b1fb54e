"""What can be done about errors before they come: each lever for the classes that it prevents."""

from ml_postgres_optimization.tuning.preventing.levers.knobs import FewerAtOnce, LargerWal, LessMemory
from ml_postgres_optimization.tuning.preventing.levers.lever import Lever, Offer, Sight
from ml_postgres_optimization.tuning.preventing.levers.sessions import EndBlocker, RoleTimeouts, VacuumTable

__all__ = [
    "EndBlocker",
    "FewerAtOnce",
    "LargerWal",
    "LessMemory",
    "Lever",
    "Offer",
    "RoleTimeouts",
    "Sight",
    "VacuumTable",
]
