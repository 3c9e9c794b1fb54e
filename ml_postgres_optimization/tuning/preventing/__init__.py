"""Meet errors before they come, and see whether that helped."""

from ml_postgres_optimization.tuning.preventing.danger import SYMPTOM, Costs, Danger, Patience
from ml_postgres_optimization.tuning.preventing.foresight import LIMITED_CLASSES, Foresight, trusted_by
from ml_postgres_optimization.tuning.preventing.means import Means, Server
from ml_postgres_optimization.tuning.preventing.occasion import Choice, HoldOut, Occasion
from ml_postgres_optimization.tuning.preventing.own_load import USUAL, Hold, beginning
from ml_postgres_optimization.tuning.preventing.preventer import Preventer
from ml_postgres_optimization.tuning.preventing.savings import HARMED, Difference, Saving, Tally, savings

__all__ = [
    "HARMED",
    "LIMITED_CLASSES",
    "SYMPTOM",
    "USUAL",
    "Choice",
    "Costs",
    "Danger",
    "Difference",
    "Foresight",
    "Hold",
    "HoldOut",
    "Means",
    "Occasion",
    "Patience",
    "Preventer",
    "Saving",
    "Server",
    "Tally",
    "beginning",
    "savings",
    "trusted_by",
]
