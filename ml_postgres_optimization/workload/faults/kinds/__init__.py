"""Every kind of fault."""

from ml_postgres_optimization.workload.faults.kinds.conflict import SerialisationConflict
from ml_postgres_optimization.workload.faults.kinds.deadlock import Deadlock
from ml_postgres_optimization.workload.faults.kinds.exhaustion import ConnectionExhaustion
from ml_postgres_optimization.workload.faults.kinds.line import LineCut, LineDelay, LineSilence, LostCommits
from ml_postgres_optimization.workload.faults.kinds.outage import CrashWay, ServerCrash, ServerRestart
from ml_postgres_optimization.workload.faults.kinds.read_only import ReadOnlyDatabase, StandbyRefusal
from ml_postgres_optimization.workload.faults.kinds.stall import LockStall, Stall, hold_row_lock, hold_table_lock
from ml_postgres_optimization.workload.faults.kinds.termination import Termination

__all__ = [
    "ConnectionExhaustion",
    "CrashWay",
    "Deadlock",
    "LineCut",
    "LineDelay",
    "LineSilence",
    "LockStall",
    "LostCommits",
    "ReadOnlyDatabase",
    "SerialisationConflict",
    "ServerCrash",
    "ServerRestart",
    "Stall",
    "StandbyRefusal",
    "Termination",
    "hold_row_lock",
    "hold_table_lock",
]
