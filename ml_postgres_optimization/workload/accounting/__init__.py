"""Who may load our tables for a run, and whether the server kept what it acknowledged."""

from ml_postgres_optimization.workload.accounting.ledger import Ledger
from ml_postgres_optimization.workload.accounting.query_plans import QueryPlan, QueryPlans
from ml_postgres_optimization.workload.accounting.recycling import Recycling

__all__ = ["Ledger", "QueryPlan", "QueryPlans", "Recycling"]
