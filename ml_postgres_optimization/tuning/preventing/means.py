"""What a prevention can see and do."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from ml_postgres_optimization.retry.classification import ErrorClass
from ml_postgres_optimization.target.seen import BloatedTable, Blocker
from ml_postgres_optimization.telemetry import Window
from ml_postgres_optimization.tuning.preventing.danger import Danger
from ml_postgres_optimization.tuning.preventing.foresight import Foresight
from ml_postgres_optimization.tuning.preventing.levers import Lever

Foresee = Callable[[Window], Foresight | None]
FindSymptoms = Callable[[Window], Sequence[Danger]]
FindHarmed = Callable[[], Collection[ErrorClass]]


class Server(Protocol):
    """What levers may do on a server besides changing settings."""

    def end_blocker(self, blocker: Blocker) -> bool:
        """End a session, if it is still as it was seen; return whether it was."""

    def begin_vacuum(self, table: BloatedTable) -> bool:
        """Begin to vacuum a table; return whether none was under way. Nobody waits for it."""

    def end_vacuum(self) -> None:
        """Break off what was begun, where it is not done; raises nothing."""


@dataclass(frozen=True, slots=True)
class Means:
    """What a prevention can see and do.

    Parameters
    ----------
    levers : sequence of Lever
        The first that can do something about a danger is pulled.
    foresee : callable
        From a window to what the error forest says after it; None where none was trained.
    symptoms : callable
        From a window to the dangers whose cause is seen.
    server : Server or None
    only_advises : bool
        Whether the owner wants to be told only.
    harmed : callable
        To the classes of which acting was shown to bring more errors than holding out: these are only told too. It is
        asked whenever a danger is met.
    """

    levers: Sequence[Lever] = ()
    foresee: Foresee = lambda _window: None
    symptoms: FindSymptoms = lambda _window: ()
    server: Server | None = None
    only_advises: bool = False
    harmed: FindHarmed = lambda: ()
