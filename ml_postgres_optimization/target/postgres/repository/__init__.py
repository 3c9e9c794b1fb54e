"""What is kept in schema genesis: windows, configurations, trials, predictions."""

from ml_postgres_optimization.target.postgres.repository.forests import CalibrationRecord, ForestRecord
from ml_postgres_optimization.target.postgres.repository.history import (
    Known,
    Period,
    SettingChange,
)
from ml_postgres_optimization.target.postgres.repository.records import (
    JournalEntry,
    PredictionRecord,
    PredictionScore,
    PreventionRecord,
    SlowerPart,
    TrialRecord,
)
from ml_postgres_optimization.target.postgres.repository.repository import Repository

__all__ = [
    "CalibrationRecord",
    "ForestRecord",
    "JournalEntry",
    "Known",
    "Period",
    "PredictionRecord",
    "PredictionScore",
    "PreventionRecord",
    "Repository",
    "SettingChange",
    "SlowerPart",
    "TrialRecord",
]
