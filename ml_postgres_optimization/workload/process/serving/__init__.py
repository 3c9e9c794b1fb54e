"""Operations under way: where they wait, how they are attempted, and what becomes of them."""

from ml_postgres_optimization.workload.process.serving.attempts import Attempts
from ml_postgres_optimization.workload.process.serving.buffer import SampleBuffer
from ml_postgres_optimization.workload.process.serving.call import Call, Calls
from ml_postgres_optimization.workload.process.serving.lane import Entry, Lane

__all__ = ["Attempts", "Call", "Calls", "Entry", "Lane", "SampleBuffer"]
