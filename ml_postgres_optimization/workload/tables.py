"""The tables that load of ours works on, each set in a schema of its own."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import Connection, sql
from psycopg.rows import TupleRow

from ml_postgres_optimization.errors import AlreadyRunning, SchemaForeign, UsageError
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings, connect, translated
from ml_postgres_optimization.workload.statements import query

ACCOUNTS_AT_SCALE_1 = 400_000
OPERATIONS_AT_SCALE_1 = 300_000
EVENTS_AT_SCALE_1 = 50_000
# The rows go through the WAL once, and the load makes the tables grow: more than twice their size must be free.
_FREE_DISK_FACTOR = 2.5
_LOCK_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class TableSet:
    """Tables that are made together, in a schema of ours.

    Parameters
    ----------
    folder : str
        Of its SQL: ``create``, one ``fill_<table>`` for each of `tables`, and ``index``.
    schema : str
    called : str
        What the comment on the schema, by which we know it, says of them.
    tables : tuple of str
        In the order in which they are filled, without what the names of all have in common.
    rows : callable
        From the scale to what the filling statements need to know.
    bytes_at_scale_1 : int
        Measured after VACUUM, indexes included; it grows in proportion to the scale.
    largest_scale : float
    layout : int
        Grows with every change of the tables; older ones are made anew.
    prefix : str
        What the names of all tables have in common.
    smallest_scale : float
    """

    folder: str
    schema: str
    called: str
    tables: tuple[str, ...]
    rows: Callable[[float], Mapping[str, int]]
    bytes_at_scale_1: int
    largest_scale: float
    layout: int = 1
    prefix: str = ""
    smallest_scale: float = 0.001

    def marker_of(self, scale: float) -> str:
        """Return the comment by which tables of this scale are known."""
        return f"Tables of genesis-pg's {self.called}; layout {self.layout}, scale {float(scale)!r}."

    def scale_of(self, marker: str) -> float | None:
        """Return the scale that a comment of ours names; None where it is of another layout.

        Raises
        ------
        ValueError
            If it is no comment of ours.
        """
        pattern = rf"Tables of genesis-pg's {re.escape(self.called)}; layout (\d+), scale ([0-9.e+-]+)\."
        found = re.fullmatch(pattern, marker)
        if found is None:
            raise ValueError(marker)
        return float(found[2]) if int(found[1]) == self.layout else None


def account_count(scale: float) -> int:
    """Return how many accounts our own load has at `scale`, numbered from 1."""
    return max(1, round(ACCOUNTS_AT_SCALE_1 * scale))


def _load_rows(scale: float) -> Mapping[str, int]:
    return {
        "accounts": account_count(scale),
        "operations": max(1, round(OPERATIONS_AT_SCALE_1 * scale)),
        "events": max(1, round(EVENTS_AT_SCALE_1 * scale)),
    }


def _tpcb_rows(scale: float) -> Mapping[str, int]:
    return {"branches": max(1, round(scale))}


def _analytic_rows(scale: float) -> Mapping[str, int]:
    return {
        "stores": 200,
        "products": max(100, round(10_000 * scale)),
        "customers": max(100, round(20_000 * scale)),
        "sales": max(1_000, round(700_000 * scale)),
    }


LOAD_TABLES = TableSet(
    "load", "genesis_load", "own load", ("accounts", "operations", "event_log"), _load_rows, 107_000_000, 5_000.0
)
# PostgreSQL's manual, pgbench: 100,000 accounts for each of its branches, of which there are as many as the scale.
TPCB_TABLES = TableSet(
    "tpcb",
    "genesis_tpcb",
    "tpcb workload",
    ("branches", "tellers", "accounts"),
    _tpcb_rows,
    15_700_000,
    20_000.0,
    prefix="pgbench_",
    smallest_scale=1.0,
)
ANALYTIC_TABLES = TableSet(
    "analytic",
    "genesis_analytic",
    "analytic workload",
    ("days", "stores", "products", "customers", "promotions", "sales"),
    _analytic_rows,
    107_000_000,
    1_000.0,
)
TABLE_SETS = (LOAD_TABLES, TPCB_TABLES, ANALYTIC_TABLES)


def create_tables(dsn: str, scale: float = 1.0, table_set: TableSet = LOAD_TABLES) -> None:
    """Make the tables at `scale`; nothing is done where they are there already at this scale.

    Parameters
    ----------
    dsn : str
        The role must own the database, or have CREATE on it.
    scale : float
        1.0 is about `TableSet.bytes_at_scale_1`; of our own load 100 MB, 400,000 accounts, made in about 3 s.
    table_set : TableSet

    Raises
    ------
    UsageError
        If the scale makes no sense, its tables would not fit on the server's disk, or the database publishes all its
        tables.
    SchemaForeign
        If a schema of that name is there that this program did not make.
    ServerUnreachable, AuthenticationFailed, PrivilegeMissing, ReadOnlyServer, TargetError

    Notes
    -----
    Everything happens in one transaction: an interruption leaves what was there before. Two callers at once wait
    for each other. The disk is checked where its path is known and on this machine (a superuser on a local
    server); elsewhere the server itself reports a full disk, and nothing is left behind.
    """
    _check_scale(scale, table_set)
    with _session(dsn, "make the tables of the load") as connection:
        with connection.transaction():
            _lock(connection, table_set)
            marker = _marker(connection, table_set)
            if marker == table_set.marker_of(scale):
                return
            check_disk(connection, scale, table_set)
            refuse_publication(connection, table_set.schema)
            if marker is not None:
                _drop(connection, table_set)
            _fill(connection, scale, table_set)
        connection.execute(sql.SQL(query("tables/settle")).format(tables=_named(table_set)))


def renew_tables(dsn: str, scale: float = 1.0, table_set: TableSet = LOAD_TABLES) -> bool:
    """Make the tables anew, with the same rows as every time, and leave nothing of it to be written later.

    Returns
    -------
    bool
        Whether there was a checkpoint, which takes a superuser, or membership in pg_checkpoint (PostgreSQL 15).

    Raises
    ------
    UsageError, SchemaForeign, ServerUnreachable, AuthenticationFailed, PrivilegeMissing, ReadOnlyServer, TargetError
        As `create_tables` does.
    """
    with _session(dsn, "see what is published") as connection:
        refuse_publication(connection, table_set.schema)
    drop_tables(dsn, table_set)
    create_tables(dsn, scale, table_set)
    with _session(dsn, "write what the tables are") as connection:
        try:
            connection.execute(query("tables/checkpoint"))
        except psycopg.errors.InsufficientPrivilege:
            return False
    return True


def drop_tables(dsn: str, table_set: TableSet = LOAD_TABLES) -> None:
    """Drop the tables, if they are there.

    Raises
    ------
    SchemaForeign
        If a schema of that name is there that this program did not make.
    ServerUnreachable, AuthenticationFailed, PrivilegeMissing, ReadOnlyServer, TargetError
    """
    with _session(dsn, "drop the tables of the load") as connection, connection.transaction():
        _lock(connection, table_set)
        if _marker(connection, table_set) is not None:
            _drop(connection, table_set)


def run_setup(dsn: str, statements: Sequence[str]) -> None:
    """Run what prepares a server of ours for a workload of the user's, statement by statement.

    Raises
    ------
    UsageError
        If the server refuses a statement; those before it stay done.
    ServerUnreachable, AuthenticationFailed, PrivilegeMissing, TargetError
    """
    with _session(dsn, "run the workload's setup.sql") as connection:
        for number, statement in enumerate(statements, 1):
            try:
                # without parameters, so that a percent sign is one
                connection.execute(statement.encode())
            except (psycopg.ProgrammingError, psycopg.DataError, psycopg.IntegrityError) as error:
                raise UsageError(
                    f"The server refuses statement {number} of setup.sql: {error.diag.message_primary}",
                    "Mend it; it runs at every start, so it has to bear being run again (IF NOT EXISTS).",
                ) from error


def tables_scale(dsn: str, table_set: TableSet = LOAD_TABLES) -> float | None:
    """Return the scale of the tables that are there; None where there are none, or of an older layout.

    Raises
    ------
    SchemaForeign
        If a schema of that name is there that this program did not make.
    ServerUnreachable, AuthenticationFailed, TargetError
    """
    with _session(dsn, "see the tables of the load") as connection:
        return scale_seen_by(connection, table_set)


def tables_exist(dsn: str, table_set: TableSet = LOAD_TABLES) -> bool:
    """Tell whether the tables are there, at whatever scale; raises what `tables_scale` does."""
    with _session(dsn, "see the tables of the load") as connection:
        return _marker(connection, table_set) is not None


def scale_seen_by(connection: Connection[TupleRow], table_set: TableSet = LOAD_TABLES) -> float | None:
    """Return what `tables_scale` does, over a connection that is open already."""
    marker = _marker(connection, table_set)
    return None if marker is None else table_set.scale_of(marker)


def check_disk(connection: Connection[TupleRow], scale: float, table_set: TableSet = LOAD_TABLES) -> None:
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
    needed_at_1 = table_set.bytes_at_scale_1 * _FREE_DISK_FACTOR
    free = shutil.disk_usage(row[0]).free
    if needed_at_1 * scale > free:
        raise UsageError(
            f"Tables of scale {scale:g} need {needed_at_1 * scale / 1e9:,.1f} GB of free disk with their WAL, and "
            f"there are {free / 1e9:,.1f} GB.",
            f"Choose a scale of at most {free / needed_at_1:.3g}, or make room.",
        )


def refuse_publication(connection: Connection[TupleRow], schema: str) -> None:
    """Refuse to make tables, or to fill them anew, where they would be published.

    Raises
    ------
    UsageError
    """
    row = connection.execute(query("tables/published")).fetchone()
    if row and row[0]:
        raise UsageError(
            f"This database publishes all its tables ({row[0]}), and whoever subscribes to it would stop at the "
            f"first row of schema {schema}.",
            "Load another server; the embedded one is there for it.",
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


def _check_scale(scale: float, table_set: TableSet) -> None:
    smallest, largest = table_set.smallest_scale, table_set.largest_scale
    if not smallest <= scale <= largest:
        megabytes = table_set.bytes_at_scale_1 / 1e6
        raise UsageError(
            f"The scale is {scale!r}.",
            f"Choose a number from {smallest:g} to {largest:,.0f}; 1 is about {megabytes:,.0f} MB.",
        )


def _lock(connection: Connection[TupleRow], table_set: TableSet) -> None:
    connection.execute(query("tables/lock"), {"schema": table_set.schema})


def _drop(connection: Connection[TupleRow], table_set: TableSet) -> None:
    """Drop the tables; raises AlreadyRunning where an extended test is on them, whose ledger they hold."""
    row = connection.execute(query("accounting/runners")).fetchone()
    if table_set is LOAD_TABLES and row is not None and row[0]:
        raise AlreadyRunning(
            f"An extended test is at work on the tables of schema {table_set.schema}: they cannot be made anew.",
            "Wait until it ends, or stop it: genesis-pg status shows it.",
        )
    connection.execute(sql.SQL(query("tables/drop")).format(schema=sql.Identifier(table_set.schema)))


def _marker(connection: Connection[TupleRow], table_set: TableSet) -> str | None:
    """Return the comment that says the schema is ours, None where there is no schema."""
    row = connection.execute(query("tables/marker"), {"schema": table_set.schema}).fetchone()
    if row is None:
        return None
    try:
        table_set.scale_of(row[0] or "")
    except ValueError:
        raise SchemaForeign(
            f"Schema {table_set.schema} is there, and this program did not make it.",
            "Rename or drop it, or name another database.",
        ) from None
    return str(row[0])


def _fill(connection: Connection[TupleRow], scale: float, table_set: TableSet) -> None:
    rows = table_set.rows(scale)
    connection.execute(query(f"tables/{table_set.folder}/create"))
    for table in table_set.tables:
        connection.execute(query(f"tables/{table_set.folder}/fill_{table}"), rows)
    connection.execute(query(f"tables/{table_set.folder}/index"))
    mark = sql.SQL(query("tables/mark"))
    marker = sql.Literal(table_set.marker_of(scale))
    connection.execute(mark.format(schema=sql.Identifier(table_set.schema), marker=marker))


def _named(table_set: TableSet) -> sql.Composed:
    return sql.SQL(", ").join(
        sql.Identifier(table_set.schema, table_set.prefix + table) for table in table_set.tables
    )
