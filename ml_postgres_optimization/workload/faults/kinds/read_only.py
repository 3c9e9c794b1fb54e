"""A load that finds itself where nothing can be written."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from psycopg import Connection, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow

from ml_postgres_optimization.errors import ServerUnreachable, UsageError
from ml_postgres_optimization.workload.faults.fault import FaultKind, check_seconds
from ml_postgres_optimization.workload.faults.ground import FaultGround, fault_session, terminate_load
from ml_postgres_optimization.workload.faults.spell import Spell
from ml_postgres_optimization.workload.statements import query

_EVERYBODY = 10_000
_AGAIN_SECONDS = 0.1
_TRIED_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class StandbyRefusal:
    """Have the load's line lead to a hot standby, as after a failover that its address did not follow: 25006.

    Connections are cut at the beginning and at the end, so that the load comes back where the line leads.

    Parameters
    ----------
    seconds : float
    """

    kind: ClassVar[FaultKind] = FaultKind.STANDBY
    seconds: float = 1.0

    def __post_init__(self) -> None:
        check_seconds("seconds", self.seconds)

    def check(self, ground: FaultGround) -> None:
        """Refuse a ground without a line or without a standby."""
        _ = ground.own_line
        if ground.standby_dsn is None:
            raise UsageError(
                "This fault needs a standby, and there is none.",
                "Give a `standby_dsn` (EmbeddedServer.start_standby makes one), or take ReadOnlyDatabase.",
            )

    def happen(self, ground: FaultGround, spell: Spell) -> int:
        """Do it; see `Fault`. Returns how many connections were cut at the beginning."""
        line = ground.own_line
        try:
            cut = line.lead_to(ground.standby_dsn)
            spell.begin()
            spell.wait()
        finally:
            line.lead_to(None)
        return cut


@dataclass(frozen=True, slots=True)
class ReadOnlyDatabase:
    """Have the load's database refuse to write (``default_transaction_read_only``): 25006, without any standby.

    Only on an embedded server of ours: the setting is in the catalogue, and would stay if this process were killed
    (SIGKILL) in the middle. Sessions of the load are ended at the beginning and at the end, since those that are open
    go on as they were.

    Parameters
    ----------
    seconds : float
    """

    kind: ClassVar[FaultKind] = FaultKind.READ_ONLY
    seconds: float = 1.0

    def __post_init__(self) -> None:
        check_seconds("seconds", self.seconds)

    def check(self, ground: FaultGround) -> None:
        """Refuse a server that is not ours."""
        _ = ground.own_server

    def happen(self, ground: FaultGround, spell: Spell) -> int:
        """Do it; see `Fault`. Returns how many sessions of the load were ended at the beginning."""
        database = str(conninfo_to_dict(ground.dsn).get("dbname") or "")
        dsn = make_conninfo(ground.own_server.dsn, dbname=database)
        with _writing_session(dsn) as connection:
            row = connection.execute(query("faults/read_only_before")).fetchone()
        before = None if row is None else str(row[0])
        if before == "on":
            raise UsageError(
                "The database refuses to write already: by its owner's will, or by another fault like this one.",
                "Wait until that has ended, or say ALTER DATABASE … RESET default_transaction_read_only.",
            )
        try:
            with _writing_session(dsn) as connection:
                reached = _set(connection, "on")
            spell.begin()
            spell.wait()
        finally:
            _put_back(dsn, before)
        return reached


def _put_back(dsn: str, before: str | None) -> None:
    """Let the database write again; also where the server is just coming up."""
    until_seconds = time.monotonic() + _TRIED_SECONDS
    while True:
        try:
            with _writing_session(dsn) as connection:
                _set(connection, before)
                return
        except ServerUnreachable:
            if time.monotonic() > until_seconds:
                raise
            time.sleep(_AGAIN_SECONDS)


def _set(connection: Connection[TupleRow], value: str | None) -> int:
    """Set or reset it for the whole database, and return how many sessions of the load were ended for that."""
    statement = sql.SQL(query("faults/reset_read_only" if value is None else "faults/set_read_only"))
    names = {"database": sql.Identifier(connection.info.dbname), "value": sql.Literal(value)}
    connection.execute(statement.format(**names))
    return len(terminate_load(connection, _EVERYBODY))


@contextmanager
def _writing_session(dsn: str) -> Iterator[Connection[TupleRow]]:
    with fault_session(dsn, 1.0, "make the database read-only or not") as connection:
        connection.execute(query("session/setting"), {"name": "default_transaction_read_only", "value": "off"})
        yield connection
