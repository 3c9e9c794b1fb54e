"""What PostgreSQL says of itself, read from its statistics views."""

from ml_postgres_optimization.target.postgres.collector.blockers import end_session_of, find_blocker
from ml_postgres_optimization.target.postgres.collector.inventory import Inventory, Stock
from ml_postgres_optimization.target.postgres.collector.statistics_collector import StatisticsCollector

__all__ = ["Inventory", "StatisticsCollector", "Stock", "end_session_of", "find_blocker"]
