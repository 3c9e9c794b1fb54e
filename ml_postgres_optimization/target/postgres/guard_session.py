"""A session inside of the server that puts back what is on trial within a second of our end."""

from __future__ import annotations

import json
import select
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import psycopg
from psycopg import Connection, sql
from psycopg.conninfo import make_conninfo
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.rows import dict_row

from ml_postgres_optimization.errors import PrivilegeMissing, TargetError
from ml_postgres_optimization.target.capabilities import Capabilities
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings, connect, translated
from ml_postgres_optimization.target.postgres.lock import KEY, Backend, backend_of
from ml_postgres_optimization.target.postgres.queries import alter_system, read_query

_EXTENSION = "dblink"
# some thirty years: SQL knows no infinite number of seconds
_NEVER_SECONDS = 1e9
_CANCELLATIONS, _CANCEL_SECONDS = 3, 1.0


@dataclass(frozen=True, slots=True)
class Reversal:
    """How one setting is put back.

    Parameters
    ----------
    name : str
    new_written : str
        As the trial writes it: what stands there then is still ours.
    old_written : str or None
        As it stood before; None where nothing stood there.
    """

    name: str
    new_written: str
    old_written: str | None

    def as_duty(self, connection: Connection[Any]) -> dict[str, str]:
        """Return it as the guard reads it, with the whole statement."""
        put_back = alter_system(self.name, self.old_written).as_string(connection)
        return {"name": self.name, "new_written": self.new_written, "put_back": put_back}


class GuardSession:
    """The session, seen from outside; made by `open`.

    It runs a loop in the server, which does not end with our connection: that the client is gone, a session that
    computes does not notice.

    Attributes
    ----------
    backend : Backend
        Which session it is.
    """

    def __init__(
        self, settings: ConnectionSettings, connection: Connection[Any], schema: str, own: str, connect_function: str
    ) -> None:
        self._settings = settings
        self._connection = connection
        self._own = own
        self.backend = backend_of(connection)
        values = {
            "schema": sql.Identifier(schema),
            "connect": sql.Identifier(schema, connect_function),
            "class": sql.Literal(KEY["class"]),
            "object": sql.Literal(KEY["object"]),
        }
        text = sql.SQL(read_query("guard/stand_by")).format(**values)
        self._stand_by = text.as_string(connection).encode()
        self._is_armed = False

    @classmethod
    def open(cls, settings: ConnectionSettings, capabilities: Capabilities) -> Self:
        """Open the session, and the connection by which it will change settings.

        Raises
        ------
        PrivilegeMissing
            If dblink is not there, or lets us in without a password only; or the role cannot see what was written.
        TargetError
            If the server cannot be reached.
        """
        if not capabilities.has_extension(_EXTENSION):
            raise PrivilegeMissing(
                "The guard inside of the server needs the extension dblink, which is not installed in this database.",
                "CREATE EXTENSION dblink; it comes with PostgreSQL's contrib modules.",
            )
        if not capabilities.settings_visible:
            raise PrivilegeMissing(
                f"Role {capabilities.role} cannot see what postgresql.auto.conf says.", "GRANT pg_read_all_settings."
            )
        _, schema = capabilities.extensions[_EXTENSION]
        connect_function = "dblink_connect" if capabilities.is_superuser else "dblink_connect_u"
        connection = connect(settings, purpose="guard", statement_timeout_seconds=0)
        try:
            with translated(settings, "open a guard session"):
                own = _connected_to_itself(connection, schema, connect_function)
                return cls(settings, connection, schema, own, connect_function)
        except BaseException:
            connection.close()
            raise

    def arm(
        self, backend: Backend, reversals: Sequence[Reversal], *, lease_seconds: float, longest_seconds: float
    ) -> None:
        """Have it stand by beside `backend`, in place of what it stood by for.

        Parameters
        ----------
        backend : Backend
            The session in which settings are changed.
        reversals : sequence of Reversal
            In the order in which they are to be put back.
        lease_seconds : float
            How long `backend` may be silent.
        longest_seconds : float
            How long it may last at most.

        Raises
        ------
        TargetError
            If the session is lost.
        """
        self.disarm()
        duty = {
            "pid": backend.pid,
            "started_at": backend.started_at,
            "lease_seconds": lease_seconds,
            "own": self._own,
            "longest_seconds": min(longest_seconds, _NEVER_SECONDS),
            "knobs": [reversal.as_duty(self._connection) for reversal in reversals],
        }
        with translated(self._settings, "arm the guard"):
            self._connection.execute(read_query("guard/duty"), {"duty": json.dumps(duty)})
            self._connection.pgconn.send_query(self._stand_by)
        self._is_armed = True

    def disarm(self) -> None:
        """Have it stand by for nothing.

        Raises
        ------
        TargetError
            If the session is lost.
        """
        if not self._is_armed:
            return
        self._is_armed = False
        with translated(self._settings, "disarm the guard"):
            self._end_loop()

    def stands_by(self) -> bool:
        """Tell whether the session is there, and has not begun to put back."""
        if not self._is_armed or self._connection.closed:
            return False
        with suppress(psycopg.Error):
            self._connection.pgconn.consume_input()
            return bool(self._connection.pgconn.is_busy())
        return False

    def leave(self) -> None:
        """Leave it alone with what it stands by for: our connection goes, and its loop takes us for gone."""
        self._is_armed = False
        self._connection.close()

    def close(self) -> None:
        """End the session."""
        with suppress(psycopg.Error, TargetError):
            self.disarm()
        self._connection.close()

    def _end_loop(self) -> None:
        """Cancel the loop, and wait until it has ended; again, as a cancellation may come before it has begun.

        Never waits in libpq itself, which would keep all threads of ours from running.
        """
        pgconn = self._connection.pgconn
        for _ in range(_CANCELLATIONS):
            self._connection.cancel_safe(timeout=_CANCEL_SECONDS)
            until = time.monotonic() + _CANCEL_SECONDS
            while time.monotonic() < until:
                if not pgconn.is_busy():
                    result = pgconn.get_result()
                    if result is None:
                        return
                    if result.status == ExecStatus.FATAL_ERROR and pgconn.status != ConnStatus.OK:
                        raise psycopg.OperationalError(result.error_message.decode(errors="replace"))
                    continue
                select.select([pgconn.socket], [], [], _CANCEL_SECONDS)
                pgconn.consume_input()
        raise psycopg.OperationalError("the guard session does not end its loop")


def _connected_to_itself(connection: Connection[Any], schema: str, connect_function: str) -> str:
    """Connect the session to its own server, and return how: without a password, which might stand in a log."""
    # a server may be told to end what a client that is gone has begun; this is what the guard is for
    connection.execute(read_query("guard/settings"))
    with connection.cursor(row_factory=dict_row) as cursor:
        address = cursor.execute(read_query("guard/address")).fetchone() or {}
    own = make_conninfo(
        "",
        host=address["folder"] or "127.0.0.1",
        port=address["port"],
        dbname=address["database"],
        user=address["role"],
        application_name="genesis-pg: guard",
        connect_timeout=5,
        options="-c idle_session_timeout=0 -c statement_timeout=30000 -c lock_timeout=5000",
    )
    query = sql.SQL(read_query("guard/connect")).format(connect=sql.Identifier(schema, connect_function))
    try:
        connection.execute(query, {"connection": own})
    except psycopg.Error as error:
        if connection.closed or error.sqlstate is None:
            raise
        raise PrivilegeMissing(
            f"The guard inside of the server may not connect to it: {error.diag.message_primary}",
            "Let our role in without a password from the server's own account (pg_hba.conf); if it is no superuser: "
            "GRANT EXECUTE ON FUNCTION dblink_connect_u(text, text).",
        ) from error
    return own
