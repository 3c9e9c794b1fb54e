"""Realistic load on our own tables: mixes, arrivals, and the generator that drives them."""

from ml_postgres_optimization.workload.catalogue import Workload, workload_named
from ml_postgres_optimization.workload.generator import (
    LoadCounters,
    LoadGenerator,
    first_run,
    free_connections,
    measure_capacity,
    usable_cores,
)
from ml_postgres_optimization.workload.mix import Mix
from ml_postgres_optimization.workload.operation import LEVELS, SOAK_MIX, Level, OperationKind, OperationMix
from ml_postgres_optimization.workload.plan import LoadArm, LoadLimiter, LoadPlan, LoadRetries, RateShape
from ml_postgres_optimization.workload.script import ScriptMix
from ml_postgres_optimization.workload.tables import (
    ANALYTIC_TABLES,
    LOAD_TABLES,
    TABLE_SETS,
    TPCB_TABLES,
    TableSet,
    create_tables,
    drop_tables,
    renew_tables,
    run_setup,
    tables_exist,
    tables_scale,
)

__all__ = [
    "ANALYTIC_TABLES",
    "LEVELS",
    "LOAD_TABLES",
    "SOAK_MIX",
    "TABLE_SETS",
    "TPCB_TABLES",
    "Level",
    "LoadArm",
    "LoadCounters",
    "LoadGenerator",
    "LoadLimiter",
    "LoadPlan",
    "LoadRetries",
    "Mix",
    "OperationKind",
    "OperationMix",
    "RateShape",
    "ScriptMix",
    "TableSet",
    "Workload",
    "create_tables",
    "drop_tables",
    "first_run",
    "free_connections",
    "measure_capacity",
    "renew_tables",
    "run_setup",
    "tables_exist",
    "tables_scale",
    "usable_cores",
    "workload_named",
]
