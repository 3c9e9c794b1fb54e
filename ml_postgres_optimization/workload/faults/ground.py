"""Where faults may strike, and the sessions that they work by."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from psycopg import Connection
from psycopg.rows import TupleRow

from ml_postgres_optimization.errors import SchemaMissing, UsageError
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings, connect, translated
from ml_postgres_optimization.workload.arrival import ZipfKeys
from ml_postgres_optimization.workload.faults.line import FaultProxy
from ml_postgres_optimization.workload.faults.locality import check_arrived, check_local
from ml_postgres_optimization.workload.generator.admission import APPLICATION_NAME
from ml_postgres_optimization.workload.plan import LoadPlan
from ml_postgres_optimization.workload.statements import query
from ml_postgres_optimization.workload.tables import account_count, scale_seen_by

if TYPE_CHECKING:  # every client process of the load imports this
    from ml_postgres_optimization.target.embedded import EmbeddedServer

_PURPOSE = "fault"
_NAME = "genesis-fault"
_GRACE_SECONDS = 10.0
_LOCK_TIMEOUT_SECONDS = 5.0
_USUAL_EXPONENT = 0.99


@dataclass(frozen=True, slots=True)
class FaultGround:
    """Where faults may strike: one server on this machine, and the load that runs on it.

    Parameters
    ----------
    dsn : str
        Straight to the server, with the role and the database of the load.
    plan : LoadPlan, optional
        Of the load, from which the accounts are known that it uses most.
    server : EmbeddedServer, optional
        The server, where it is one of our own: only such a one is restarted, killed, or made read-only. Nobody else
        may use the object meanwhile.
    line : FaultProxy, optional
        The line by which the load reaches the server.
    standby_dsn : str, optional
        A hot standby of the server.

    Raises
    ------
    UsageError
        If a server is not on this machine.
    """

    dsn: str = field(repr=False)
    plan: LoadPlan | None = None
    server: EmbeddedServer | None = None
    line: FaultProxy | None = None
    standby_dsn: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_local(self.dsn)
        if self.standby_dsn is not None:
            check_local(self.standby_dsn)

    @property
    def own_server(self) -> EmbeddedServer:
        """The server of our own; raises UsageError where there is none."""
        if self.server is None:
            raise UsageError("This fault strikes the server itself, so only an embedded one.", "Give its `server`.")
        return self.server

    @property
    def own_line(self) -> FaultProxy:
        """The line to the server; raises UsageError where there is none."""
        if self.line is None:
            raise UsageError("This fault strikes the line to the server, and there is none.", "Give a `line`.")
        return self.line

    @contextmanager
    def session(self, seconds: float, doing: str) -> Iterator[Connection[TupleRow]]:
        """Give a session for a fault of `seconds`, named ``genesis-fault``: whoever observes the
        server sees it as he sees the sessions of anybody else, for whom it stands.

        The server itself ends it soon after that time, so that a fault is bounded even where our process hangs.

        Raises
        ------
        UsageError
            If it has arrived on another machine.
        ServerUnreachable, AuthenticationFailed, PrivilegeMissing, ReadOnlyServer, TargetError
        """
        with fault_session(self.dsn, seconds, doing) as connection:
            yield connection

    def popular_accounts(self, connection: Connection[TupleRow], most: int) -> list[int]:
        """Return the accounts that the load uses most, the most popular first.

        Raises
        ------
        SchemaMissing
            If the tables of the load are not there.
        SchemaForeign
        """
        scale = scale_seen_by(connection)
        if scale is None:
            raise SchemaMissing("The tables of the load are not there.", "Make them: create_tables makes them.")
        exponent = self.plan.zipf_exponent if self.plan else _USUAL_EXPONENT
        count = (self.plan.key_count if self.plan else None) or account_count(scale)
        ranks = np.arange(1, min(most, count) + 1, dtype=np.int64)
        return [int(key) for key in ZipfKeys(count, exponent).key_of(ranks)]


@contextmanager
def fault_session(dsn: str, seconds: float, doing: str) -> Iterator[Connection[TupleRow]]:
    """Give what `FaultGround.session` does, on any server of this machine; raises as it does."""
    settings = ConnectionSettings.from_dsn(dsn)
    longest_seconds = seconds + _GRACE_SECONDS
    with (
        connect(
            settings,
            purpose=_PURPOSE,
            statement_timeout_seconds=longest_seconds,
            lock_timeout_seconds=_LOCK_TIMEOUT_SECONDS,
        ) as connection,
        translated(settings, doing),
    ):
        check_arrived(connection, settings)
        limit = f"{longest_seconds * 1000:.0f}ms"
        own = {"idle_in_transaction_session_timeout": limit, "idle_session_timeout": limit, "application_name": _NAME}
        for name, value in own.items():
            connection.execute(query("session/setting"), {"name": name, "value": value})
        yield connection


def terminate_load(
    connection: Connection[TupleRow], most: int, *, but: tuple[int, ...] = (), idle_too: bool = True
) -> tuple[int, ...]:
    """End sessions of our own load in this database, those at work first, and return their processes.

    Parameters
    ----------
    most : int
    but : tuple of int
        Processes that are left alone.
    idle_too : bool
        Whether sessions that have nothing to do are taken where none is at work.

    Raises
    ------
    PrivilegeMissing
        If the load runs under another role, and ours may not end its sessions.
    """
    parameters = {"name": APPLICATION_NAME, "most": most, "but": list(but), "idle_too": idle_too}
    return tuple(int(row[0]) for row in connection.execute(query("faults/terminate"), parameters))


def waiting_total(watcher: Connection[TupleRow], holder: Connection[TupleRow]) -> int:
    """Return how many sessions wait for a lock of `holder`.

    `watcher` must not be in a transaction, in which the server shows the sessions as they were at its first look.
    """
    row = watcher.execute(query("faults/waiting"), {"holder": holder.info.backend_pid}).fetchone()
    return int(row[0]) if row else 0
