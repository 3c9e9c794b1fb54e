"""Faults under way: one by one, or by a schedule beside a load."""

from ml_postgres_optimization.workload.faults.injecting.injector import FaultInjector
from ml_postgres_optimization.workload.faults.injecting.run import FaultRecord, FaultRun
from ml_postgres_optimization.workload.faults.injecting.schedule import FaultRate, FaultSchedule, Occurrence
from ml_postgres_optimization.workload.faults.injecting.stated import NO_FAULTS, PRESETS, FaultList

__all__ = [
    "NO_FAULTS",
    "PRESETS",
    "FaultInjector",
    "FaultList",
    "FaultRate",
    "FaultRecord",
    "FaultRun",
    "FaultSchedule",
    "Occurrence",
]
