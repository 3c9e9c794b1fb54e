"""Open sessions that are polite, bounded in time, and safe from what others put into the database."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import Connection
from psycopg.rows import TupleRow

from ml_postgres_optimization.errors import GenesisError, UnsupportedVersion
from ml_postgres_optimization.target.postgres.connection.failures import connect_failure, statement_failure
from ml_postgres_optimization.target.postgres.connection.settings import ConnectionSettings
from ml_postgres_optimization.target.postgres.queries import OLDEST_MAJOR, read_query

APPLICATION_NAME = "genesis-pg"
_NAME_LIMIT = 63
"""Bytes in a name, one less than NAMEDATALEN."""

_TRANSPORT = {
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
    "client_encoding": "UTF8",
}
"""Ours where the user gave nothing else: a peer that vanished is noticed in a minute, not after two hours."""

_SESSION = {
    "search_path": "pg_catalog, pg_temp",
    "standard_conforming_strings": "on",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "default_transaction_isolation": "read committed",
    "idle_in_transaction_session_timeout": "60s",
    "idle_session_timeout": "0",
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}
"""What a role or database may have set otherwise. Its schemas cannot shadow PostgreSQL's functions (CVE-2018-1058);
values come in the forms that the driver reads; our session is not ended for idleness, but neither kept long when our
machine is gone, nor with a transaction open."""


def connect(
    settings: ConnectionSettings,
    *,
    purpose: str = "",
    statement_timeout_seconds: float = 30.0,
    lock_timeout_seconds: float = 0.5,
    autocommit: bool = True,
) -> Connection[TupleRow]:
    """Open a session with ``application_name`` ``genesis-pg``, or ``genesis-pg: <purpose>``.

    Parameters
    ----------
    settings : ConnectionSettings
        Its own ``connect_timeout``, keepalive and encoding parameters win over ours.
    purpose : str
        What the session is for; told to the server's administrator.
    statement_timeout_seconds, lock_timeout_seconds : float
        0 means none. The wait for a lock should stay below ``deadlock_timeout`` (1 s), lest it cancel an autovacuum.
    autocommit : bool

    Raises
    ------
    ServerUnreachable, AuthenticationFailed, UnsupportedVersion, ReadOnlyServer, PrivilegeMissing, TargetError
        What kept us out.
    UsageError
        If libpq cannot use a parameter.

    Notes
    -----
    ``search_path`` is ``pg_catalog, pg_temp``: every other name must be qualified. Behind a connection pooler the
    session is left as it is (see `is_pooled`), since its settings would stay in a session of the application's.
    """
    timeouts = {
        "statement_timeout": f"{round(statement_timeout_seconds * 1000)}ms",
        "lock_timeout": f"{round(lock_timeout_seconds * 1000)}ms",
    }
    connection = _open(settings, session_name(purpose), autocommit)
    try:
        _refuse_old_version(connection, settings)
        with translated(settings, "set its own session's limits"):
            _prepare(connection, timeouts)
    except BaseException:
        connection.close()
        raise
    return connection


def session_name(purpose: str) -> str:
    """Return the ``application_name`` of a session of ours.

    Examples
    --------
    >>> session_name("statistics")
    'genesis-pg: statistics'
    """
    name = f"{APPLICATION_NAME}: {purpose}" if purpose else APPLICATION_NAME
    return name[:_NAME_LIMIT]


@contextmanager
def translated(settings: ConnectionSettings, doing: str = "do this") -> Iterator[None]:
    """Raise our errors instead of the driver's, in everything that is done inside.

    Parameters
    ----------
    doing : str
        What is tried, as it follows "may not": ``read pg_file_settings``.

    Raises
    ------
    ServerUnreachable, PrivilegeMissing, ReadOnlyServer, TargetError
        As the SQLSTATE says. An error that is the caller's to handle (a wrong value, a missing table, a deadlock)
        goes through as it is.
    """
    try:
        yield
    except psycopg.Error as error:
        if failure := statement_failure(error, settings, doing):
            raise failure from error
        raise


def is_pooled(connection: Connection[TupleRow]) -> bool:
    """Tell whether a connection pooler stands between us and the server.

    A pooler invents the process number that it announces at the start; the answering process knows better.
    """
    row = connection.execute(read_query("connection/backend")).fetchone()
    return row is not None and row[0] != connection.info.backend_pid


def _open(settings: ConnectionSettings, name: str, autocommit: bool) -> Connection[TupleRow]:
    """Connect, or raise our error outside of the handler: no trace then keeps the driver's, with the password."""
    failure: GenesisError
    try:
        return psycopg.connect(**_with_transport(settings, name), autocommit=autocommit)  # type: ignore[arg-type]
    except (psycopg.Error, UnicodeError) as error:
        failure = connect_failure(error, settings)
    raise failure


def _with_transport(settings: ConnectionSettings, name: str) -> dict[str, str]:
    ours = _TRANSPORT if not os.environ.get("PGCONNECT_TIMEOUT") else {**_TRANSPORT, "connect_timeout": None}
    given = {**ours, **settings.parameters, "application_name": name}
    return {keyword: value for keyword, value in given.items() if value is not None}


def _refuse_old_version(connection: Connection[TupleRow], settings: ConnectionSettings) -> None:
    if connection.info.server_version < OLDEST_MAJOR * 10_000:
        seen = connection.info.parameter_status("server_version") or str(connection.info.server_version)
        raise UnsupportedVersion(
            f"The server at {settings.display} is PostgreSQL {seen}; the oldest supported is {OLDEST_MAJOR}.",
            f"Upgrade it (pg_upgrade keeps the data), or name a server of version {OLDEST_MAJOR} or newer.",
        )


def _prepare(connection: Connection[TupleRow], timeouts: dict[str, str]) -> None:
    """Give the session its limits in one round trip, and to a superuser's English messages, since we match texts."""
    values = {**_SESSION, **timeouts}
    if connection.info.parameter_status("is_superuser") == "on":
        values["lc_messages"] = "C"
    parameters = {
        "names": list(values),
        "values": list(values.values()),
        "backend_pid": connection.info.backend_pid,
    }
    rows = connection.execute(read_query("connection/session"), parameters).fetchall()
    if not rows:
        connection.prepare_threshold = None
    if not connection.autocommit:
        connection.commit()
