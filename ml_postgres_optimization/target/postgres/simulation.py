"""What ``simulate_load.sql`` does, for sessions that have no psql: realistic load by SQL alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.resources import files

import psycopg
from psycopg import Connection
from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb

from ml_postgres_optimization.errors import SchemaForeign, UsageError
from ml_postgres_optimization.target.postgres.connection import translated
from ml_postgres_optimization.target.postgres.queries import read_query
from ml_postgres_optimization.target.postgres.schema import require_schema, settings_of

SIMULATE_LOAD_SQL = files("ml_postgres_optimization.target.postgres") / "sql" / "simulate_load.sql"
"""The script itself, for those who have psql."""

_FILES = ("simulation/tables", "simulation/schedule", "simulation/run")


@dataclass(frozen=True, slots=True)
class SimulationPlan:
    """The arguments of ``simulate_load.sql``, which explains them.

    Parameters
    ----------
    rows, operations, seed, minutes, windows : int
    real_time : bool
        Whether to sleep until each operation is due.
    labels : mapping of str to str
        Added to the labels of the reference windows.
    """

    rows: int = 10_000
    operations: int = 10_000
    seed: int = 1
    minutes: int = 1_440
    windows: int = 24
    real_time: bool = False
    labels: dict[str, str] = field(default_factory=dict)


def simulate_load(
    connection: Connection[TupleRow], plan: SimulationPlan, *, progress: Callable[[str], None] = lambda line: None
) -> None:
    """Run the plan's operations in this session, and keep their reference windows in schema genesis.

    Parameters
    ----------
    connection : psycopg.Connection
        In autocommit mode, with no statement time-out below what the plan takes; several sessions may run at once,
        each with a seed of its own.
    plan : SimulationPlan
    progress : callable
        Receives each NOTICE.

    Raises
    ------
    UsageError
        If the plan makes no sense, its seed is under way in another session, or its tables would be published.
    SchemaForeign
        If a schema ``genesis_simulation`` is there that is not ours.
    SchemaMissing, PrivilegeMissing, ReadOnlyServer, ServerUnreachable, TargetError
    """
    require_schema(connection)
    with _translated(connection), _notices_to(connection, progress):
        with connection.transaction():
            for name in _FILES:
                connection.execute(read_query(name), prepare=False)
        parameters = {**asdict(plan), "pace": "real" if plan.real_time else "fast", "labels": Jsonb(plan.labels)}
        connection.execute(read_query("simulation/call"), parameters)


@contextmanager
def _notices_to(connection: Connection[TupleRow], progress: Callable[[str], None]) -> Iterator[None]:
    def forward(notice: psycopg.errors.Diagnostic) -> None:
        progress(notice.message_primary or "")

    connection.add_notice_handler(forward)
    try:
        yield
    finally:
        connection.remove_notice_handler(forward)


@contextmanager
def _translated(connection: Connection[TupleRow]) -> Iterator[None]:
    try:
        with translated(settings_of(connection), "simulate load"):
            yield
    except psycopg.Error as error:
        said, hint = error.diag.message_primary or str(error), error.diag.message_hint or ""
        if error.sqlstate == "GE001":
            raise SchemaForeign(said, hint) from error
        is_refused = isinstance(error, psycopg.errors.InvalidParameterValue | psycopg.errors.ObjectInUse)
        if is_refused or error.sqlstate == "GE005":
            raise UsageError(said, hint) from error
        raise
