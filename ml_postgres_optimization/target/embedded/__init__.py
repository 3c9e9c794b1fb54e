"""An embedded PostgreSQL: started and stopped by us only."""

from ml_postgres_optimization.target.embedded.binaries import Binaries, all_binaries, find_binaries
from ml_postgres_optimization.target.embedded.cluster import system_identifier
from ml_postgres_optimization.target.embedded.server import AttachedServer, EmbeddedServer

__all__ = ["AttachedServer", "Binaries", "EmbeddedServer", "all_binaries", "find_binaries", "system_identifier"]
