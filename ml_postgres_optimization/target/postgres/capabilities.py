"""Ask a server what it is and what it lets us do."""

from __future__ import annotations

import hashlib
from typing import Any

from psycopg import Connection
from psycopg.rows import dict_row, tuple_row

from ml_postgres_optimization.errors import ReadOnlyServer
from ml_postgres_optimization.target.capabilities import Capabilities
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings, connect, translated
from ml_postgres_optimization.target.postgres.queries import list_elements, read_query
from ml_postgres_optimization.telemetry import Clock


def read_capabilities(connection: Connection[Any]) -> Capabilities:
    """Ask the server behind `connection` what it is, and what our role may do on it.

    Returns
    -------
    Capabilities
        Of this database and role. `preloaded` is None where the role may not see it
        (``pg_read_all_settings``, which ``pg_monitor`` includes).

    Raises
    ------
    psycopg.Error
        If the connection is lost; nothing that is asked needs a privilege.

    Notes
    -----
    Eight short queries, some 3 ms in all on a local PostgreSQL 15 with two busy cores.
    """
    identity = _row(connection, "identity")
    preloaded = identity.pop("preloaded")
    managers = _rows(connection, "managed_by")
    workers = _rows(connection, "own_settings")
    grants = frozenset(name for (name,) in _rows(connection, "parameter_grants"))
    return Capabilities(
        **identity,
        system_identifier=read_system_identifier(connection),
        extensions={name: (version, schema) for name, version, schema in _rows(connection, "extensions")},
        available_extensions=frozenset(name for (name,) in _rows(connection, "available_extensions")),
        preloaded=None if preloaded is None else tuple(list_elements(preloaded)),
        may_alter_system=True if identity["is_superuser"] else grants,
        managed_by=managers[0][0] if managers else None,
        workers=frozenset(worker for worker, _ in workers),
        own_settings=_by_name(workers),
    )


def _by_name(workers: list[tuple[Any, ...]]) -> dict[str, frozenset[str]]:
    """Return, for each parameter, the workers that have a value of their own."""
    names = {name for _, name in workers if name}
    return {name: frozenset(worker for worker, own in workers if own == name) for name in sorted(names)}


def read_system_identifier(connection: Connection[Any]) -> str:
    """Return the number that initdb gave to the cluster, else a stand-in made of where we reach it.

    The function that tells it may be executed by everybody, unless somebody revoked that.

    Raises
    ------
    psycopg.Error
        If the connection is lost.
    """
    if _row(connection, "control_file_visible")["visible"]:
        return str(_row(connection, "control_file")["system_identifier"])
    address = f"{connection.info.host}:{connection.info.port}"
    return "at-" + hashlib.sha256(address.encode()).hexdigest()[:16]


def clock_ahead_seconds(settings: ConnectionSettings, clock: Clock) -> float:
    """Return how far the server's clock is ahead of `clock`, within half of a round trip.

    Raises
    ------
    TargetError
        If the server cannot be reached: see `connect`.
    """
    with connect(settings, purpose="clock") as connection, translated(settings, "read the clock"):
        before = clock.now()
        (server,) = connection.execute(read_query("capabilities/clock")).fetchone() or (before,)
        after = clock.now()
    return float((server - before - (after - before) / 2).total_seconds())


def require_writable_primary(capabilities: Capabilities) -> None:
    """Refuse to tune what cannot be written to.

    Raises
    ------
    ReadOnlyServer
        If the server is a standby, or read-only by setting.
    """
    if capabilities.in_recovery:
        raise ReadOnlyServer(
            "This server is a standby (in recovery): it takes its data from a primary and cannot be tuned by itself.",
            "Connect to the primary; target_session_attrs=read-write finds it among several hosts.",
        )
    if capabilities.read_only:
        raise ReadOnlyServer(
            f"Role {capabilities.role} is read-only in database {capabilities.database}: "
            "default_transaction_read_only is on.",
            "Turn it off for our role: ALTER ROLE … SET default_transaction_read_only = off.",
        )


def _rows(connection: Connection[Any], name: str) -> list[tuple[Any, ...]]:
    query = read_query(f"capabilities/{name}", connection.info.server_version // 10_000)
    return connection.cursor(row_factory=tuple_row).execute(query).fetchall()


def _row(connection: Connection[Any], name: str) -> dict[str, Any]:
    query = read_query(f"capabilities/{name}", connection.info.server_version // 10_000)
    return connection.cursor(row_factory=dict_row).execute(query).fetchone() or {}
