"""The load generator, seen from the parent process."""

from ml_postgres_optimization.workload.generator.admission import free_connections
from ml_postgres_optimization.workload.generator.capacity import measure_capacity
from ml_postgres_optimization.workload.generator.counters import LoadCounters
from ml_postgres_optimization.workload.generator.first_run import first_run
from ml_postgres_optimization.workload.generator.load_generator import LoadGenerator
from ml_postgres_optimization.workload.generator.shares import usable_cores

__all__ = ["LoadCounters", "LoadGenerator", "first_run", "free_connections", "measure_capacity", "usable_cores"]
