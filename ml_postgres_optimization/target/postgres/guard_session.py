"""A session inside of the server that puts back what is on trial within a second of our end."""

from __future__ import annotations

import json
import secrets
import select
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import psycopg
from psycopg import Connection, sql
from psycopg.conninfo import make_conninfo
from psycopg.errors import Diagnostic
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.rows import dict_row

from ml_postgres_optimization.errors import PrivilegeMissing, TargetError
from ml_postgres_optimization.knobs.configuration import RoleSetting
from ml_postgres_optimization.target.capabilities import Capabilities
from ml_postgres_optimization.target.postgres.connection import (
    ConnectionSettings,
    connect,
    session_name,
    translated,
)
from ml_postgres_optimization.target.postgres.lock import KEY
from ml_postgres_optimization.target.postgres.queries import alter_setting, read_query

_EXTENSION = "dblink"
_PERMISSION_DENIED = "42501"
# some thirty years: SQL knows no infinite number of seconds
_NEVER_SECONDS = 1e9
_BEGIN_SECONDS = 5.0
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
        put_back = alter_setting(self.name, self.old_written).as_string(connection)
        of_role = RoleSetting.of(self.name)
        whose = {} if of_role is None else {"role": of_role.role, "database": of_role.database}
        name = self.name if of_role is None else of_role.name
        return {"name": name, "new_written": self.new_written, "put_back": put_back, **whose}


class GuardSession:
    """The session, seen from outside; made by `open`.

    It runs a loop in the server, which does not end with our connection: that the client is gone, a session that
    computes does not notice.

    Attributes
    ----------
    name : str
        What it goes by on the server, and no other session does.
    """

    def __init__(
        self,
        settings: ConnectionSettings,
        connection: Connection[Any],
        *,
        name: str,
        schema: str,
        own: str,
        connect_function: str,
    ) -> None:
        self._settings = settings
        self._connection = connection
        self._own = own
        self.name = name
        values = {
            "schema": sql.Identifier(schema),
            "connect": sql.Identifier(schema, connect_function),
            "class": sql.Literal(KEY["class"]),
            "object": sql.Literal(KEY["object"]),
        }
        text = sql.SQL(read_query("guard/stand_by")).format(**values)
        self._stand_by = text.as_string(connection).encode()
        connection.add_notice_handler(self._note_begin)
        self._is_armed = False
        self._has_begun = False

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
                "CREATE EXTENSION dblink;"
                if _EXTENSION in capabilities.available_extensions
                else "Install PostgreSQL's contrib package on the server; then CREATE EXTENSION dblink;",
            )
        if not capabilities.settings_visible:
            raise PrivilegeMissing(
                f"Role {capabilities.role} cannot see what postgresql.auto.conf says.",
                "genesis-pg doctor says which grants let it.",
            )
        _, schema = capabilities.extensions[_EXTENSION]
        connect_function = "dblink_connect" if capabilities.is_superuser else "dblink_connect_u"
        purpose = f"guard {secrets.token_hex(8)}"
        name = session_name(purpose)
        connection = connect(settings, purpose=purpose, statement_timeout_seconds=0)
        try:
            with translated(settings, "open a guard session"):
                own = _own_address(connection, name)
                connect_to_itself = sql.Identifier(schema, connect_function)
                _connect(connection, own, connect_to_itself, capabilities.grantee)
                return cls(settings, connection, name=name, schema=schema, own=own, connect_function=connect_function)
        except BaseException:
            connection.close()
            raise

    def arm(
        self,
        session: str,
        process: int,
        reversals: Sequence[Reversal],
        *,
        lease_seconds: float,
        longest_seconds: float,
    ) -> None:
        """Have it stand by beside a session, in place of what it stood by for.

        Parameters
        ----------
        session : str
            What sessions go by in which settings are changed: all that do are ended before anything is put back.
        process : int
            The server's process of the one that is watched.
        reversals : sequence of Reversal
            In the order in which they are to be put back.
        lease_seconds : float
            How long it may be silent.
        longest_seconds : float
            How long it may last at most.

        Raises
        ------
        TargetError
            If the session is lost.
        """
        self.disarm()
        duty = {
            "session": session,
            "pid": process,
            "lease_seconds": lease_seconds,
            "own": self._own,
            "longest_seconds": min(longest_seconds, _NEVER_SECONDS),
            "knobs": [reversal.as_duty(self._connection) for reversal in reversals],
        }
        with translated(self._settings, "arm the guard"):
            self._connection.execute(read_query("guard/duty"), {"duty": json.dumps(duty)})
            self._begin_loop()

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

    def _begin_loop(self) -> None:
        """Begin the loop, and wait until it says so."""
        pgconn, until = self._connection.pgconn, time.monotonic() + _BEGIN_SECONDS
        self._has_begun = False
        self._is_armed = True
        pgconn.send_query(self._stand_by)
        # notices are taken while it is asked whether it is busy
        while pgconn.is_busy() and not self._has_begun and time.monotonic() < until:
            select.select([pgconn.socket], [], [], _BEGIN_SECONDS)
            pgconn.consume_input()
        if not self._has_begun or not pgconn.is_busy():
            raise psycopg.OperationalError("the guard session does not begin its loop; the server's log says why")

    def _note_begin(self, _notice: Diagnostic) -> None:
        self._has_begun = True

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


def _own_address(connection: Connection[Any], name: str) -> str:
    """Return how the session reaches its own server: without a password, which might stand in a log."""
    # a server may be told to end what a client that is gone has begun; this is what the guard is for
    connection.execute(read_query("guard/settings"))
    with connection.cursor(row_factory=dict_row) as cursor:
        address = cursor.execute(read_query("guard/address")).fetchone() or {}
    return make_conninfo(
        "",
        host=address["folder"] or "127.0.0.1",
        port=address["port"],
        dbname=address["database"],
        user=address["role"],
        application_name=f"{name} to itself",
        connect_timeout=5,
        # the last of them so that what is put back outlives a crash, whatever our role has
        options="-c idle_session_timeout=0 -c statement_timeout=30000 -c lock_timeout=5000 "
        "-c synchronous_commit=local -c default_transaction_read_only=off",
    )


def _connect(connection: Connection[Any], own: str, function: sql.Identifier, grantee: str) -> None:
    query = sql.SQL(read_query("guard/connect")).format(connect=function)
    try:
        connection.execute(query, {"connection": own})
    except psycopg.Error as error:
        if connection.closed or error.sqlstate is None:
            raise
        said = " ".join((error.diag.message_detail or error.diag.message_primary or "").split())
        raise PrivilegeMissing(
            f"The guard inside of the server may not connect to it: {said.rstrip('.')}.",
            "genesis-pg doctor says which grants let it, and what to look at before."
            if error.sqlstate == _PERMISSION_DENIED
            else f"Let {grantee} in without a password from the server's own account (pg_hba.conf).",
        ) from error
