"""How the roles are taken away again."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from ml_postgres_optimization.target.postgres.roles.names import ROLES, composed, roles_found


def removal_statements(connection: Connection[Any]) -> tuple[str, ...]:
    """Return what drops the roles of ours; nothing where they are not there.

    It is never run by us: a role belongs to the whole server, and other databases may still use it.

    Raises
    ------
    psycopg.Error
        If the connection is lost.
    """
    found = roles_found(connection)
    return composed(connection, "drop") if all(found.get(name, False) for name in ROLES) else ()
