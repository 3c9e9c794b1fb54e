"""No connection left for the load."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import ClassVar

from psycopg import Connection
from psycopg.rows import TupleRow

from ml_postgres_optimization.errors import ServerUnreachable, UsageError
from ml_postgres_optimization.workload.faults.fault import FaultKind, check_count, check_seconds
from ml_postgres_optimization.workload.faults.ground import FaultGround, terminate_load
from ml_postgres_optimization.workload.faults.spell import Spell
from ml_postgres_optimization.workload.statements import query

_LOOK_SECONDS = 0.002
# a session that was ended may win the race for its place, and is ended again
_TRIES_FOR_EACH_PLACE = 10


@dataclass(frozen=True, slots=True)
class ConnectionExhaustion:
    """Hold every connection that the load's role could still have, and take the place of sessions of the load.

    What reconnects then is refused (53300) until the fault ends. The role is no superuser, so the connections that
    are reserved for superusers stay free whatever happens: the server itself sees to that.

    Parameters
    ----------
    displaced : int
        Sessions of the load that are ended, and their places taken.
    count : int
        Connections that are held at most.
    seconds : float
    approach_seconds : float
        How long it takes to come there: the free connections are taken evenly over this time, before the fault is in
        force and anybody is refused, as by an application that forgets to close them.
    """

    kind: ClassVar[FaultKind] = FaultKind.EXHAUSTION
    displaced: int = 1
    count: int = 1_000
    seconds: float = 1.0
    approach_seconds: float = 0.0

    def __post_init__(self) -> None:
        check_count("displaced", self.displaced, least=0)
        check_count("count", self.count)
        check_seconds("seconds", self.seconds)
        check_seconds("approach_seconds", self.approach_seconds)

    def check(self, ground: FaultGround) -> None:
        """Accept every ground; whether the role is a superuser, only its session can tell."""

    def happen(self, ground: FaultGround, spell: Spell) -> int:
        """Hold them; see `Fault`. Returns how many sessions of the load were ended.

        Raises
        ------
        UsageError
            If the role is a superuser.
        """
        with ExitStack() as held, ground.session(self._session_seconds, "take connections") as watcher:
            _refuse_superuser(watcher)
            room = _Room(ground, held, self)
            pause_seconds = self.approach_seconds / max(1, min(self.count, _free(watcher)))
            while room.take_one():
                if spell.approach(pause_seconds):
                    break
            spell.begin()
            ended = self._displace(watcher, room, spell)
            spell.wait()
        return ended

    @property
    def _session_seconds(self) -> float:
        return self.approach_seconds + self.seconds

    def _displace(self, watcher: Connection[TupleRow], room: _Room, spell: Spell) -> int:
        ended, displaced, tries = 0, 0, _TRIES_FOR_EACH_PLACE * self.displaced
        while displaced < self.displaced and tries and room.has_left and not spell.is_over:
            tries -= 1
            if not terminate_load(watcher, 1):
                spell.wait(_LOOK_SECONDS)
                continue
            ended += 1
            # the place is free a moment after its session has said goodbye
            for _ in range(_TRIES_FOR_EACH_PLACE):
                if room.take_one():
                    displaced += 1
                    break
                if spell.wait(_LOOK_SECONDS):
                    break
        return ended


class _Room:
    """The connections that are held."""

    def __init__(self, ground: FaultGround, held: ExitStack, fault: ConnectionExhaustion) -> None:
        self._ground = ground
        self._held = held
        self._seconds = fault.approach_seconds + fault.seconds
        self._left = fault.count

    @property
    def has_left(self) -> bool:
        """Whether more may be held."""
        return self._left > 0

    def take_one(self) -> bool:
        """Open one more; False where the server refuses it, or no more may be held."""
        if not self.has_left:
            return False
        try:
            self._held.enter_context(self._ground.session(self._seconds, "hold a connection"))
        except ServerUnreachable:
            return False
        self._left -= 1
        return True


def _free(connection: Connection[TupleRow]) -> int:
    row = connection.execute(query("session/free_connections")).fetchone()
    return int(row[0]) if row else 0


def _refuse_superuser(connection: Connection[TupleRow]) -> None:
    if connection.info.parameter_status("is_superuser") == "on":
        raise UsageError(
            f"Role {connection.info.user} is a superuser, to whom the last connections of a server are reserved.",
            "Have the load, and this fault, connect as a role that is none.",
        )
