"""Faults for tests and benchmarks: on loopback only, bounded in time, drawn by a seed."""

from ml_postgres_optimization.workload.faults.lock_stall import Stall, hold_row_lock, hold_table_lock
from ml_postgres_optimization.workload.faults.proxy import CommitCut, FaultProxy

__all__ = ["CommitCut", "FaultProxy", "Stall", "hold_row_lock", "hold_table_lock"]
