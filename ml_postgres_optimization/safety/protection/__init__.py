"""Whoever puts back what is on trial when we no longer can: a process outside, a session inside of the server."""

from ml_postgres_optimization.safety.protection.lease import LEASE_SECONDS, Lease
from ml_postgres_optimization.safety.protection.messages import Duty

__all__ = ["LEASE_SECONDS", "Duty", "Lease"]
