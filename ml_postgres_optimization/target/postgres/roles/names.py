"""What the roles are called, and how their statements are composed."""

from __future__ import annotations

from typing import Any

from psycopg import Connection, sql

from ml_postgres_optimization.target.postgres.queries import read_query

OBSERVE, ADVISE, TUNE = "genesis_observe", "genesis_advise", "genesis_tune"
ROLES = (OBSERVE, ADVISE, TUNE)
"""From the least to the most; each may do what the one before it may."""

_NAMES = {"observe": sql.Identifier(OBSERVE), "advise": sql.Identifier(ADVISE), "tune": sql.Identifier(TUNE)}


def composed(connection: Connection[Any], name: str, **values: sql.Composable) -> tuple[str, ...]:
    """Return the statements of ``sql/roles/<name>.sql``, each with the comment above it.

    Parameters
    ----------
    connection : psycopg.Connection
        Whose encoding names are quoted for.
    name : str
    values : psycopg.sql.Composable
        What stands for the file's placeholders, beside the names of the roles.
    """
    # taken apart before names come in: one may hold what ends a statement
    parts = (part.strip() for part in read_query(f"roles/{name}").split(";\n"))
    return tuple(sql.SQL(part + ";").format(**_NAMES, **values).as_string(connection) for part in parts if part)


def roles_found(connection: Connection[Any]) -> dict[str, bool]:
    """Return which of the roles are there, and whether each bears our mark.

    Raises
    ------
    psycopg.Error
        If the connection is lost.
    """
    return dict(connection.execute(read_query("roles/found"), {"names": list(ROLES)}).fetchall())
