"""What PostgreSQL says of itself, read from its statistics views."""

from ml_postgres_optimization.target.postgres.collector.statistics_collector import StatisticsCollector

__all__ = ["StatisticsCollector"]
