"""Read a server's counters, gauges and sessions, without changing anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import psycopg
from psycopg import Connection, Cursor, sql
from psycopg.abc import Params
from psycopg.rows import TupleRow, class_row, tuple_row

from ml_postgres_optimization.target.capabilities import Capabilities
from ml_postgres_optimization.target.host.probe import HostProbe
from ml_postgres_optimization.target.postgres.collector.literals import without_literals
from ml_postgres_optimization.target.postgres.collector.own_statements import OwnStatements
from ml_postgres_optimization.target.postgres.collector.visibility import hidden_by_privileges, unavailable
from ml_postgres_optimization.target.postgres.queries import read_query
from ml_postgres_optimization.telemetry import (
    ActivitySample,
    Clock,
    MemoryReading,
    Snapshot,
    StatementCounters,
    StatementKey,
    SystemClock,
)

ONE_ROW_SOURCES = (
    "database",
    "cluster",
    "tables",
    "wal",
    "checkpointer",
    "background_writer",
    "io",
    "locks",
    "replication",
    "slots",
)
_NULL = "NULL: not measured now (track_io_timing is off, for one), or hidden from the role"
# syntax or access rule, feature not supported, object not in prerequisite state: asking again gives the same answer
_REFUSED_FOR_GOOD = ("42", "0A", "55000")
_HIDDEN_TEXT = "<insufficient privilege>"


class StatisticsCollector:
    """Observe a PostgreSQL server through its statistics views; implements `telemetry.Collector`.

    Parameters
    ----------
    connection : psycopg.Connection
        In autocommit mode, since a refused query must not spoil the next one. Used by one thread at a time.
    capabilities : Capabilities
        Of the server and role behind `connection`.
    host : HostProbe or None
        The machine that the server runs on; None where we do not see it.
    clock : Clock, optional

    Notes
    -----
    A query that the server refuses is not asked again; `Snapshot.unseen` says why. Statistics are never reset.
    Queries of ours are left out of `Snapshot.statements`; the counters of the server and of the database (commits,
    blocks, write-ahead log) hold what we do like anybody's work, since the server adds them up.

    On PostgreSQL 15 over a Unix socket (two cores) a snapshot takes 2 ms, and 4 ms more for each 1,000 entries of
    ``pg_stat_statements`` and 3 ms for each 1,000 tables; activity takes 0.2 ms. The first snapshot, and each that
    meets new entries, reads their texts besides: see `statement_texts`.
    """

    def __init__(
        self,
        connection: Connection[Any],
        capabilities: Capabilities,
        host: HostProbe | None = None,
        *,
        clock: Clock | None = None,
    ) -> None:
        self._connection = connection
        self._host = host
        self._clock = clock or SystemClock()
        self._major = capabilities.major
        _, self._extension_schema = capabilities.extensions.get("pg_stat_statements", ("", "public"))
        self._partly_hidden = hidden_by_privileges(capabilities)
        self._switched_off = unavailable(capabilities)
        self._queries: dict[str, bytes] = {}
        self._own_statements = OwnStatements(self.statement_texts)

    def snapshot(self) -> Snapshot:
        """Read every counter and gauge.

        Raises
        ------
        psycopg.OperationalError
            If the connection is lost; what the server merely refuses is told by `Snapshot.unseen`.
        """
        taken_at, monotonic_seconds = self._clock.now(), self._clock.monotonic_seconds()
        values: dict[str, float] = {}
        unseen = dict(self._partly_hidden)
        for source in ONE_ROW_SOURCES:
            self._read_source(source, values, unseen)
        statements = self._read_statements(values, unseen)
        self._read_host(values, unseen)
        return Snapshot(taken_at, monotonic_seconds, values, statements, {**unseen, **self._switched_off})

    def activity(self) -> ActivitySample:
        """Read who is doing what.

        Raises
        ------
        psycopg.Error
            If the connection is lost or the server does not answer in time.
        """
        with self._connection.cursor(row_factory=class_row(ActivitySample)) as cursor:
            return cursor.execute(self._composed("activity")).fetchall()[0]

    def memory(self) -> MemoryReading | None:
        """Read how much memory the server's machine has left; None where that is not seen. Asks no server."""
        return self._host.memory() if self._host else None

    def statement_texts(self, keys: Iterable[StatementKey]) -> Mapping[StatementKey, str]:
        """Return the text of queries, without values; those that are gone or may not be read are absent.

        Costs about 100 ms on a server with 5,000 entries: ask for new keys only.

        Raises
        ------
        psycopg.OperationalError
            If the connection is lost.
        """
        wanted = set(keys)
        if not wanted or "statements" in self._switched_off:
            return {}
        cursor = self._ask("statement_texts", {}, {"queryids": [queryid for queryid, _, _ in wanted]})
        texts = {(queryid, user, database): text for queryid, user, database, text in cursor or ()}
        # without a text: the server has lost the file that they were in
        return {
            key: without_literals(text)
            for key, text in texts.items()
            if key in wanted and text and text != _HIDDEN_TEXT
        }

    def _read_source(self, source: str, values: dict[str, float], unseen: dict[str, str]) -> None:
        cursor = self._ask(source, unseen)
        if cursor is None:
            return
        columns = [f"{source}.{column.name}" for column in cursor.description or ()]
        row = cursor.fetchone() or ()
        values.update((name, float(value)) for name, value in zip(columns, row, strict=True) if value is not None)
        unseen.update((name, _NULL) for name, value in zip(columns, row, strict=True) if value is None)

    def _read_statements(
        self, values: dict[str, float], unseen: dict[str, str]
    ) -> Mapping[StatementKey, StatementCounters]:
        if "statements" in self._switched_off:
            return {}
        cursor = self._ask("statements", unseen)
        if cursor is None:
            return {}
        self._read_source("statements_info", values, unseen)
        statements = {(row[0], row[1], row[2]): StatementCounters(*row[3:]) for row in cursor}
        return self._own_statements.left_out_of(statements)

    def _read_host(self, values: dict[str, float], unseen: dict[str, str]) -> None:
        if self._host is None:
            unseen["host"] = "the server does not run where this program does"
            return
        reading = self._host.read()
        values.update(reading.values)
        unseen.update(reading.unseen)

    def _ask(self, name: str, unseen: dict[str, str], parameters: Params | None = None) -> Cursor[TupleRow] | None:
        """Run a query; None where the server has or gives no answer, with the reason in `unseen`."""
        if name in self._switched_off:
            return None
        try:
            return self._connection.cursor(row_factory=tuple_row).execute(self._composed(name), parameters)
        except psycopg.Error as error:
            if self._connection.broken or error.sqlstate is None:
                raise
            self._refused(name, error, unseen)
            return None

    def _refused(self, name: str, error: psycopg.Error, unseen: dict[str, str]) -> None:
        reason = f"{error.diag.message_primary} (SQLSTATE {error.sqlstate})"
        for_good = (error.sqlstate or "").startswith(_REFUSED_FOR_GOOD)
        (self._switched_off if for_good else unseen)[name] = reason

    def _composed(self, name: str) -> bytes:
        if name not in self._queries:
            text = sql.SQL(read_query(f"statistics/{name}", self._major))
            composed = text.format(schema=sql.Identifier(self._extension_schema))
            self._queries[name] = composed.as_bytes(self._connection)
        return self._queries[name]
