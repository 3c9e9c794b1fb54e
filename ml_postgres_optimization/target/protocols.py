"""What a server must be able to do for us: observed through one protocol, changed through another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from ml_postgres_optimization.knobs.knob import KnobValue, Setting
from ml_postgres_optimization.knobs.machine import Machine
from ml_postgres_optimization.target.capabilities import Capabilities
from ml_postgres_optimization.target.seen import RoleSeen
from ml_postgres_optimization.telemetry import Collector, MemoryReading

Condition = Callable[[Setting | None], bool]


def always(_setting: Setting | None) -> bool:
    """Ask for nothing."""
    return True


class Actuator(Protocol):
    """Read and write settings for all sessions of a server, or for the new ones of a role.

    A role's setting goes by its key, `knobs.configuration.RoleSetting`. It needs no `reload`: new sessions have it as
    soon as it is written, and none that is open ever gets it. What is said below of ``postgresql.auto.conf`` holds of
    ``pg_db_role_setting`` then.

    Only `safety.guard` may call `write`, `restore`, `reload` and `restart` (rule 4 of the house).
    """

    @property
    def can_restart(self) -> bool:
        """Whether `rehearse` and `restart` can be asked for."""

    def settings(self, names: Iterable[str]) -> Mapping[str, Setting]:
        """Return the live settings; a name that the server lacks is absent.

        The values are those in a *fresh* session, so that role and database settings, which win over the file,
        are seen as the application's sessions see them.
        """

    def role(self, name: str) -> RoleSeen | None:
        """Return what a role is; None where there is none of that name."""

    def write(self, name: str, value: KnobValue, *, only_if: Condition = always) -> bool:
        """Write `value` (base units) for `name` into ``postgresql.auto.conf``; in force after `reload`.

        Only where `only_if` holds of the setting at that very moment; return whether it was done.

        Raises
        ------
        ChangeRefused
            If the server refuses the value.
        PrivilegeMissing
            If the role may not set it.
        """

    def restore(self, name: str, written_value: str | None, *, only_if: Condition = always) -> bool:
        """Put back what ``postgresql.auto.conf`` said: the text as it stood there, or nothing (RESET).

        Only where `only_if` holds of the setting at that very moment; return whether it was done.
        """

    def reload(self) -> None:
        """Make written values take effect, and wait until a fresh session sees that they did."""

    def rehearse(self, values: Mapping[str, KnobValue]) -> None:
        """See, without touching the server, that it would start with `values` (base units) over what it has.

        Raises
        ------
        ChangeRefused
            If it would not.
        TargetError
            If that cannot be found out.
        """

    def restart(self, rescue: Mapping[str, str | None]) -> None:
        """Restart the server, so that all that was written takes effect, and wait until it accepts connections.

        Parameters
        ----------
        rescue : mapping of str to str or None
            Where it does not start: what ``postgresql.auto.conf`` shall say of these parameters again (None: nothing)
            before it is started once more.

        Raises
        ------
        ChangeRefused
            If it had to be rescued: it runs again, under what it had before.
        TargetError
            If it does not start at all.
        """


class Restarter(Protocol):
    """Restart a server from outside of it."""

    def rehearse(self, values: Mapping[str, str]) -> None:
        """See that the server's programs start with `values` on a scratch data directory; see `Actuator.rehearse`."""

    def restart(self, rescue: Mapping[str, str | None]) -> None:
        """Stop the server and start it again; see `Actuator.restart`."""


class Target(Collector, Actuator, Protocol):
    """A server that is observed and tuned."""

    @property
    def capabilities(self) -> Capabilities:
        """What it is and lets us do."""

    @property
    def machine(self) -> Machine:
        """What it runs on."""

    def memory(self) -> MemoryReading | None:
        """Return how much memory its machine has left; None where that is not seen."""
