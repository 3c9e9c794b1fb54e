"""Faults for tests and benchmarks: on this machine only, bounded in count and in time, drawn by a seed."""

from ml_postgres_optimization.workload.faults.fault import Fault, FaultKind
from ml_postgres_optimization.workload.faults.ground import FaultGround
from ml_postgres_optimization.workload.faults.injecting import (
    NO_FAULTS,
    PRESETS,
    FaultInjector,
    FaultList,
    FaultRate,
    FaultRecord,
    FaultRun,
    FaultSchedule,
)
from ml_postgres_optimization.workload.faults.kinds import (
    ConnectionExhaustion,
    CrashWay,
    Deadlock,
    LineCut,
    LineDelay,
    LineSilence,
    LockStall,
    LostCommits,
    ReadOnlyDatabase,
    SerialisationConflict,
    ServerCrash,
    ServerRestart,
    Stall,
    StandbyRefusal,
    Termination,
    hold_row_lock,
    hold_table_lock,
)
from ml_postgres_optimization.workload.faults.line import CommitCut, FaultProxy
from ml_postgres_optimization.workload.faults.spell import Spell

__all__ = [
    "NO_FAULTS",
    "PRESETS",
    "CommitCut",
    "ConnectionExhaustion",
    "CrashWay",
    "Deadlock",
    "Fault",
    "FaultGround",
    "FaultInjector",
    "FaultKind",
    "FaultList",
    "FaultProxy",
    "FaultRate",
    "FaultRecord",
    "FaultRun",
    "FaultSchedule",
    "LineCut",
    "LineDelay",
    "LineSilence",
    "LockStall",
    "LostCommits",
    "ReadOnlyDatabase",
    "SerialisationConflict",
    "ServerCrash",
    "ServerRestart",
    "Spell",
    "Stall",
    "StandbyRefusal",
    "Termination",
    "hold_row_lock",
    "hold_table_lock",
]
