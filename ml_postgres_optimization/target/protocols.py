"""What a server must be able to do for us: observed through one protocol, changed through another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from ml_postgres_optimization.knobs.knob import KnobValue, Setting
from ml_postgres_optimization.knobs.machine import Machine
from ml_postgres_optimization.target.capabilities import Capabilities
from ml_postgres_optimization.telemetry import Collector


class Actuator(Protocol):
    """Read and write settings for all sessions of a server.

    Only `safety.guard` may call `write`, `reset` and `reload` (rule 4 of the house).
    """

    def settings(self, names: Iterable[str]) -> Mapping[str, Setting]:
        """Return the live settings; a name that the server lacks is absent.

        The values are those in a *fresh* session, so that role and database settings, which win over the file,
        are seen as the application's sessions see them.
        """

    def write(self, name: str, value: KnobValue) -> None:
        """Write `value` (base units) for `name` into ``postgresql.auto.conf``; in force after `reload`.

        Raises
        ------
        ChangeRefused
            If the server refuses the value.
        PrivilegeMissing
            If the role may not set it.
        """

    def restore(self, name: str, written_value: str | None) -> None:
        """Put back what ``postgresql.auto.conf`` said: the text as it stood there, or nothing (RESET)."""

    def reload(self) -> None:
        """Make written values take effect, and wait until a fresh session sees that they did."""


class Target(Collector, Actuator, Protocol):
    """A server that is observed and tuned."""

    @property
    def capabilities(self) -> Capabilities:
        """What it is and lets us do."""

    @property
    def machine(self) -> Machine:
        """What it runs on."""
