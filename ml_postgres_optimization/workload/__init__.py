"""Realistic load on our own tables: mixes, arrivals, and the generator that drives them."""

from ml_postgres_optimization.workload.fault import hold_row_lock, hold_table_lock
from ml_postgres_optimization.workload.generator import (
    LoadCounters,
    LoadGenerator,
    free_connections,
    measure_capacity,
)
from ml_postgres_optimization.workload.operation import LEVELS, SOAK_MIX, Level, OperationKind, OperationMix
from ml_postgres_optimization.workload.plan import LoadArm, LoadPlan, RateShape
from ml_postgres_optimization.workload.tables import create_tables, drop_tables, tables_exist, tables_scale

__all__ = [
    "LEVELS",
    "SOAK_MIX",
    "Level",
    "LoadArm",
    "LoadCounters",
    "LoadGenerator",
    "LoadPlan",
    "OperationKind",
    "OperationMix",
    "RateShape",
    "create_tables",
    "drop_tables",
    "free_connections",
    "hold_row_lock",
    "hold_table_lock",
    "measure_capacity",
    "tables_exist",
    "tables_scale",
]
