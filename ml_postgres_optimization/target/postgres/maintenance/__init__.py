"""Work on tables that the server does by itself, done sooner."""

from ml_postgres_optimization.target.postgres.maintenance.vacuum import Vacuum, find_bloated_table

__all__ = ["Vacuum", "find_bloated_table"]
