"""The load generator, seen from the process that uses it."""

from ml_postgres_optimization.workload.generator.admission import free_connections
from ml_postgres_optimization.workload.generator.capacity import measure_capacity
from ml_postgres_optimization.workload.generator.counters import LoadCounters
from ml_postgres_optimization.workload.generator.load_generator import LoadGenerator

__all__ = ["LoadCounters", "LoadGenerator", "free_connections", "measure_capacity"]
