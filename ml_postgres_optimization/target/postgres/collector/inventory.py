"""Amounts that grow slowly and are dear to read: sizes, memory of processes, files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import Connection, sql
from psycopg.rows import dict_row

from ml_postgres_optimization.target.capabilities import Capabilities
from ml_postgres_optimization.target.host.disk import free_bytes
from ml_postgres_optimization.target.host.server_memory import ServerMemory
from ml_postgres_optimization.target.postgres.queries import read_query

INVENTORY_SOURCES = ("load_tables", "wal_folder", "autovacuum", "inexact_bloat")
_BLOAT_EXTENSION = "pgstattuple"
# Its pages are read, not only counted: once in ten minutes, where everything else is read each minute.
_BLOAT_EACH = 10


@dataclass(frozen=True, slots=True)
class Stock:
    """What there is of everything that could be seen.

    Parameters
    ----------
    values : mapping of str to float
        ``<source>.<name>``, gauges all of them.
    unseen : mapping of str to str
        Source or name → why it could not be read. Empty is never taken for zero.
    passing : set of str
        Those of `unseen` that may be there the next time: somebody held a lock, say.
    """

    values: Mapping[str, float]
    unseen: Mapping[str, str]
    passing: Collection[str] = frozenset()


class Inventory:
    """Take stock of a server; what is not allowed or not there is told, and not asked again.

    Parameters
    ----------
    connection : psycopg.Connection
        In autocommit mode.
    capabilities : Capabilities
    memory : ServerMemory or None
        Of the server's processes; None where it does not run on this machine.
    data_directory : Path or None
        Where it can be seen.

    Notes
    -----
    Waits for no lock: where somebody has one of the load's tables for himself, its size is unseen this time. Takes
    some 10 ms with 30 sessions: call it once a minute.
    """

    def __init__(
        self,
        connection: Connection[Any],
        capabilities: Capabilities,
        memory: ServerMemory | None = None,
        data_directory: Path | None = None,
    ) -> None:
        self._connection = connection
        self._major = capabilities.major
        self._memory = memory
        self._data_directory = data_directory
        self._refused: dict[str, str] = {}
        self._looks = 0
        _, self._schema = capabilities.extensions.get(_BLOAT_EXTENSION, ("", "public"))
        if _BLOAT_EXTENSION not in capabilities.extensions:
            self._refused["inexact_bloat"] = f"extension {_BLOAT_EXTENSION} is not installed in this database"

    def take(self) -> Stock:
        """Read everything that may be read.

        Raises
        ------
        psycopg.OperationalError
            If the connection is lost.
        """
        values: dict[str, float] = {}
        unseen: dict[str, str] = {}
        for source in INVENTORY_SOURCES:
            is_due = source != "inexact_bloat" or self._looks % _BLOAT_EACH == 0
            if is_due and source not in self._refused:
                self._ask(source, values, unseen)
        self._looks += 1
        passing = unseen.keys() & set(INVENTORY_SOURCES)
        self._read_host(values, unseen)
        return Stock(values, {**unseen, **self._refused}, passing)

    def _ask(self, source: str, values: dict[str, float], unseen: dict[str, str]) -> None:
        query = sql.SQL(read_query(f"statistics/{source}", self._major)).format(schema=sql.Identifier(self._schema))
        try:
            with self._connection.transaction(), self._connection.cursor(row_factory=dict_row) as cursor:
                cursor.execute(read_query("sessions/impatient"))
                row = cursor.execute(query).fetchone() or {}
        except psycopg.Error as error:
            if self._connection.broken or error.sqlstate is None:
                raise
            told = self._refused if error.sqlstate.startswith(("42", "0A", "55000")) else unseen
            told[source] = f"{error.diag.message_primary} (SQLSTATE {error.sqlstate})"
            return
        values.update((f"{source}.{name}", float(value)) for name, value in row.items() if value is not None)
        unseen.update((f"{source}.{name}", "the server does not say") for name, value in row.items() if value is None)

    def _read_host(self, values: dict[str, float], unseen: dict[str, str]) -> None:
        if self._memory is None:
            unseen["server"] = "the server does not run where this program does"
            return
        memory, missing = self._memory.read()
        values.update(memory)
        unseen.update(missing)
        if self._data_directory is None:
            unseen["wal_folder.free_bytes"] = "the data directory is not known"
            return
        try:
            values["wal_folder.free_bytes"] = float(free_bytes(self._data_directory / "pg_wal"))
        except OSError as error:
            unseen["wal_folder.free_bytes"] = f"{error.filename}: {error.strerror}"
