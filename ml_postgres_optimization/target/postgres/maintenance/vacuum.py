"""A VACUUM that nobody waits for, and that can be broken off."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import psycopg
from psycopg import Connection, sql
from psycopg.rows import TupleRow, class_row

from ml_postgres_optimization.target.postgres.connection import ConnectionSettings, connect, translated
from ml_postgres_optimization.target.postgres.queries import read_query
from ml_postgres_optimization.target.seen import BloatedTable


def find_bloated_table(connection: Connection[Any]) -> BloatedTable | None:
    """Return the table with the most dead rows; None where there are no tables."""
    with connection.cursor(row_factory=class_row(BloatedTable)) as cursor:
        return cursor.execute(read_query("sessions/bloated_table")).fetchone()


class Vacuum:
    """One VACUUM at a time, in a session of its own: as gentle as autovacuum's.

    It waits for no lock, gives back no room at the table's end (which would lock it for a moment), and rests as often
    as autovacuum does. Where we are killed it goes on to its end, as autovacuum's would.

    Parameters
    ----------
    settings : ConnectionSettings
    """

    def __init__(self, settings: ConnectionSettings) -> None:
        self._settings = settings
        self._connection: Connection[TupleRow] | None = None

    def begin(self, table: BloatedTable) -> bool:
        """Begin; return False where one is under way.

        Raises
        ------
        ServerUnreachable, TargetError
        """
        self._close_if_done()
        if self._connection is not None:
            return False
        connection = connect(self._settings, purpose="vacuum", statement_timeout_seconds=0)
        try:
            with translated(self._settings, f"vacuum {table}"):
                connection.execute(read_query("sessions/gentle_vacuum"))
                statement = sql.SQL("VACUUM (SKIP_LOCKED, TRUNCATE FALSE) {}").format(
                    sql.Identifier(table.schema, table.name)
                )
                connection.pgconn.send_query(statement.as_bytes(connection))
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return True

    def end(self) -> None:
        """Break it off, if it is under way; a server that cannot be told is left to itself."""
        self._close_if_done()
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.cancel()
            connection.close()

    def _close_if_done(self) -> None:
        connection = self._connection
        if connection is None:
            return
        try:
            connection.pgconn.consume_input()
            is_done = not connection.pgconn.is_busy()
        except psycopg.Error:  # the server is gone
            is_done = True
        if is_done:
            connection.close()
            self._connection = None
