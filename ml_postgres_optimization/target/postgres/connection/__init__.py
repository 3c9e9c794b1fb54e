"""How a server is named, reached, and what goes wrong on the way."""

from ml_postgres_optimization.target.postgres.connection.lasting import LastingConnection
from ml_postgres_optimization.target.postgres.connection.resolution import resolve_connection
from ml_postgres_optimization.target.postgres.connection.session import (
    APPLICATION_NAME,
    connect,
    is_pooled,
    session_name,
    translated,
)
from ml_postgres_optimization.target.postgres.connection.settings import ConnectionSettings

__all__ = [
    "APPLICATION_NAME",
    "ConnectionSettings",
    "LastingConnection",
    "connect",
    "is_pooled",
    "resolve_connection",
    "session_name",
    "translated",
]
