"""A server of our own that goes down, and comes back."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

import psutil

from ml_postgres_optimization.errors import ServerUnreachable, UsageError
from ml_postgres_optimization.workload.faults.fault import FaultKind, check_seconds
from ml_postgres_optimization.workload.faults.ground import FaultGround, fault_session
from ml_postgres_optimization.workload.faults.spell import Spell

if TYPE_CHECKING:  # every client process of the load imports this
    from ml_postgres_optimization.target.embedded import EmbeddedServer

_UP_AGAIN_SECONDS = 60.0
_LOOK_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class ServerRestart:
    """Stop the server as ``pg_ctl stop -m fast`` does, and start it again: 57P01, then 08001 or 57P03.

    Parameters
    ----------
    seconds : float
        How long it stays down, once it is: how long a shutdown takes is the server's affair.
    """

    kind: ClassVar[FaultKind] = FaultKind.RESTART
    seconds: float = 0.0

    def __post_init__(self) -> None:
        check_seconds("seconds", self.seconds)

    def check(self, ground: FaultGround) -> None:
        """Refuse a server that is not ours."""
        _ = ground.own_server

    def happen(self, ground: FaultGround, spell: Spell) -> int:
        """Do it; see `Fault`. The server is up when it returns."""
        server = ground.own_server
        try:
            server.halt("fast")
            spell.begin()
            spell.wait()
        finally:
            server.restart()
        return 1


class CrashWay(StrEnum):
    """What becomes of the server's processes."""

    BACKEND = "backend"
    """One session's is killed (SIGKILL), whereupon the postmaster ends all others and recovers by itself (57P02)."""
    IMMEDIATE = "immediate"
    """All are told to go at once, as ``pg_ctl stop -m immediate`` does."""
    POSTMASTER = "postmaster"
    """The postmaster is killed (SIGKILL)."""


@dataclass(frozen=True, slots=True)
class ServerCrash:
    """Have the server go down without a shutdown, so that it recovers from its WAL.

    Open sessions see 57P02 or a lost connection, whoever connects meanwhile 08001 or 57P03.

    Parameters
    ----------
    way : CrashWay
    seconds : float
        How long it stays down, once it is; nothing for `CrashWay.BACKEND`, in which the postmaster does not wait.
    """

    kind: ClassVar[FaultKind] = FaultKind.CRASH
    way: CrashWay = CrashWay.BACKEND
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.way not in tuple(CrashWay):
            raise UsageError(f"There is no crash by {self.way!r}.", f"Choose from {', '.join(CrashWay)}.")
        check_seconds("seconds", self.seconds)

    def check(self, ground: FaultGround) -> None:
        """Refuse a server that is not ours."""
        _ = ground.own_server

    def happen(self, ground: FaultGround, spell: Spell) -> int:
        """Do it; see `Fault`. The server is up when it returns."""
        server = ground.own_server
        if self.way is CrashWay.BACKEND:
            _kill_own_backend(server)
            spell.begin()
            _await_recovery(server)
            return 1
        try:
            if self.way is CrashWay.IMMEDIATE:
                server.halt("immediate")
            else:
                server.kill()
            spell.begin()
            spell.wait()
        finally:
            server.restart()
        return 1


def _kill_own_backend(server: EmbeddedServer) -> None:
    """Kill the process behind a session of this fault's own: it need not be anybody else's."""
    with fault_session(server.dsn, _UP_AGAIN_SECONDS, "crash the server") as connection:
        process = psutil.Process(connection.info.backend_pid)
        if process.ppid() != server.process_id:
            raise UsageError("The server's processes are not seen from here.", "Choose another way to crash it.")
        process.kill()
        # its parent has noticed when it is gone
        process.wait()


def _await_recovery(server: EmbeddedServer) -> None:
    """Wait until the server takes connections; start it where it does not come back by itself."""
    until_seconds = time.monotonic() + _UP_AGAIN_SECONDS
    while server.is_running and time.monotonic() < until_seconds:
        try:
            with fault_session(server.dsn, 1.0, "see whether the server is up"):
                return
        except ServerUnreachable:
            time.sleep(_LOOK_SECONDS)
    server.restart()
