"""Restart a server from outside of it, and bring it back should it not start."""

from ml_postgres_optimization.target.restart.command_restarter import CommandRestarter
from ml_postgres_optimization.target.restart.embedded_restarter import EmbeddedRestarter
from ml_postgres_optimization.target.restart.rehearsal import Rehearsal

__all__ = ["CommandRestarter", "EmbeddedRestarter", "Rehearsal"]
