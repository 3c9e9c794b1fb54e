"""A line to a server, and what can happen on it."""

from ml_postgres_optimization.workload.faults.line.proxy import LONGEST_DELAY_SECONDS, CommitCut, FaultProxy

__all__ = ["LONGEST_DELAY_SECONDS", "CommitCut", "FaultProxy"]
