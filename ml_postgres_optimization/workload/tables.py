"""The tables that our own load works on: schema ``genesis_load``."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from psycopg import Connection, sql
from psycopg.rows import TupleRow

from ml_postgres_optimization.errors import SchemaForeign, UsageError
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings, connect, translated
from ml_postgres_optimization.workload.statements import query

# Measured on PostgreSQL 15 at scale 1: 102 MB after VACUUM, indexes included. It grows in proportion to the scale.
ACCOUNTS_AT_SCALE_1 = 400_000
OPERATIONS_AT_SCALE_1 = 300_000
EVENTS_AT_SCALE_1 = 50_000
BYTES_AT_SCALE_1 = 107_000_000
SMALLEST_SCALE = 0.001
LARGEST_SCALE = 5_000.0
# The rows go through the WAL once, and the load makes the tables grow: more than twice their size must be free.
_FREE_DISK_FACTOR = 2.5
_LAYOUT = 1
_LOCK_TIMEOUT_SECONDS = 60.0
_MARKER = re.compile(r"Tables of genesis-pg's own load; layout (?P<layout>\d+), scale (?P<scale>[0-9.e+-]+)\.")


def create_tables(dsn: str, scale: float = 1.0) -> None:
    """Make the tables at `scale`; nothing is done where they are there already at this scale.

    Parameters
    ----------
    dsn : str
        The role must own the database, or have CREATE on it.
    scale : float
        1.0 is about 100 MB, 400,000 accounts; made in about 3 s. From 0.001 to 5,000.

    Raises
    ------
    UsageError
        If the scale makes no sense, or its tables would not fit on the server's disk.
    SchemaForeign
        If a schema ``genesis_load`` is there that this program did not make.
    ServerUnreachable, AuthenticationFailed, PrivilegeMissing, ReadOnlyServer, TargetError

    Notes
    -----
    Everything happens in one transaction: an interruption leaves what was there before. Two callers at once wait
    for each other. The disk is checked where its path is known and on this machine (a superuser on a local
    server); elsewhere the server itself reports a full disk, and nothing is left behind.
    """
    _check_scale(scale)
    with _session(dsn, "make the tables of the load") as connection:
        with connection.transaction():
            connection.execute(query("tables/lock"))
            marker = _marker(connection)
            if marker == _marker_of(scale):
                return
            check_disk(connection, scale)
            if marker is not None:
                connection.execute(query("tables/drop"))
            _fill(connection, scale)
        connection.execute(query("tables/settle"))


def drop_tables(dsn: str) -> None:
    """Drop the tables, if they are there.

    Raises
    ------
    SchemaForeign
        If a schema ``genesis_load`` is there that this program did not make.
    ServerUnreachable, AuthenticationFailed, PrivilegeMissing, ReadOnlyServer, TargetError
    """
    with _session(dsn, "drop the tables of the load") as connection, connection.transaction():
        connection.execute(query("tables/lock"))
        if _marker(connection) is not None:
            connection.execute(query("tables/drop"))


def tables_scale(dsn: str) -> float | None:
    """Return the scale of the tables that are there; None where there are none, or of an older layout.

    Raises
    ------
    SchemaForeign
        If a schema ``genesis_load`` is there that this program did not make.
    ServerUnreachable, AuthenticationFailed, TargetError
    """
    with _session(dsn, "see the tables of the load") as connection:
        return scale_seen_by(connection)


def tables_exist(dsn: str) -> bool:
    """Tell whether the tables are there, at whatever scale; raises what `tables_scale` does."""
    return tables_scale(dsn) is not None


def scale_seen_by(connection: Connection[TupleRow]) -> float | None:
    """Return what `tables_scale` does, over a connection that is open already."""
    marker = _marker(connection)
    found = _MARKER.fullmatch(marker) if marker else None
    return float(found["scale"]) if found and int(found["layout"]) == _LAYOUT else None


def account_count(scale: float) -> int:
    """Return how many accounts there are at `scale`, numbered from 1."""
    return max(1, round(ACCOUNTS_AT_SCALE_1 * scale))


def check_disk(connection: Connection[TupleRow], scale: float) -> None:
    """Refuse a scale that would not fit where the server keeps its data, as far as that can be seen from here.

    Raises
    ------
    UsageError
    """
    row = connection.execute(query("tables/data_directory")).fetchone()
    info = connection.info
    is_local = info.host.startswith("/") or info.hostaddr in {"127.0.0.1", "::1"}
    if row is None or not is_local or not Path(row[0]).is_dir():
        return
    needed, free = round(BYTES_AT_SCALE_1 * scale * _FREE_DISK_FACTOR), shutil.disk_usage(row[0]).free
    if needed > free:
        largest = free / (BYTES_AT_SCALE_1 * _FREE_DISK_FACTOR)
        raise UsageError(
            f"Tables of scale {scale:g} need {needed / 1e9:,.1f} GB of free disk with their WAL, and there are "
            f"{free / 1e9:,.1f} GB.",
            f"Choose a scale of at most {largest:.3g}, or make room.",
        )


@contextmanager
def _session(dsn: str, doing: str) -> Iterator[Connection[TupleRow]]:
    settings = ConnectionSettings.from_dsn(dsn)
    with (
        connect(
            settings,
            purpose="load tables",
            statement_timeout_seconds=0,
            lock_timeout_seconds=_LOCK_TIMEOUT_SECONDS,
        ) as connection,
        translated(settings, doing),
    ):
        yield connection


def _check_scale(scale: float) -> None:
    if not SMALLEST_SCALE <= scale <= LARGEST_SCALE:
        raise UsageError(
            f"The scale is {scale!r}.",
            f"Choose a number from {SMALLEST_SCALE:g} to {LARGEST_SCALE:,.0f}; 1 is about 100 MB.",
        )


def _marker_of(scale: float) -> str:
    return f"Tables of genesis-pg's own load; layout {_LAYOUT}, scale {float(scale)!r}."


def _marker(connection: Connection[TupleRow]) -> str | None:
    """Return the comment that says the schema is ours, None where there is no schema."""
    row = connection.execute(query("tables/marker")).fetchone()
    if row is None:
        return None
    if not _MARKER.fullmatch(row[0] or ""):
        raise SchemaForeign(
            "Schema genesis_load is there, and this program did not make it.",
            "Rename or drop it, or name another database.",
        )
    return str(row[0])


def _fill(connection: Connection[TupleRow], scale: float) -> None:
    rows = {
        "accounts": account_count(scale),
        "operations": max(1, round(OPERATIONS_AT_SCALE_1 * scale)),
        "events": max(1, round(EVENTS_AT_SCALE_1 * scale)),
    }
    connection.execute(query("tables/create"))
    for table in ("accounts", "operations", "event_log"):
        connection.execute(query(f"tables/fill_{table}"), rows)
    connection.execute(query("tables/index"))
    connection.execute(sql.SQL(query("tables/mark")).format(marker=sql.Literal(_marker_of(scale))))
