"""What somebody who looked at a server's settings has seen."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class SettingSeen:
    """A setting as it holds for all sessions of a server.

    Parameters
    ----------
    name, value : str
        The value as ``pg_settings`` has it, in `unit`.
    unit : str or None
    kind : str
        ``pg_settings.vartype``.
    """

    name: str
    value: str
    unit: str | None
    kind: str


@dataclass(frozen=True, slots=True)
class ConfigurationSeen:
    """What somebody who looked at a server has seen.

    Parameters
    ----------
    at, loaded_at : datetime
        By the server's clock: when that was, and when the server had last taken over its configuration files.
    settings : tuple of SettingSeen
        What was looked at; what is not among them is taken to be as it was.
    is_standby : bool
        Whether it is one: it has the system identifier of its primary, and a configuration of its own.
    """

    at: datetime
    loaded_at: datetime
    settings: tuple[SettingSeen, ...] = ()
    is_standby: bool = False


@dataclass(frozen=True, slots=True)
class Blocker:
    """A session that is idle in a transaction while others wait for its locks.

    Parameters
    ----------
    pid : int
    backend_start, idle_since : datetime
        By the server's clock; with the process they tell this very idleness from any other.
    role, application : str
    idle_seconds : float
    blocked : int
        Sessions that wait for it.
    """

    pid: int
    backend_start: datetime
    idle_since: datetime
    role: str
    application: str
    idle_seconds: float
    blocked: int

    def __str__(self) -> str:
        return (
            f"session {self.pid} of role {self.role}, idle in a transaction for {self.idle_seconds:.0f} s while "
            f"{self.blocked} wait for it"
        )


@dataclass(frozen=True, slots=True)
class BloatedTable:
    """A table with dead rows in it, as the server's statistics have it.

    Parameters
    ----------
    schema, name : str
    dead_rows, live_rows : int
    is_vacuumed : bool
        Whether somebody vacuums it just now.
    may_be_vacuumed : bool
        Whether our role may.
    """

    schema: str
    name: str
    dead_rows: int
    live_rows: int
    is_vacuumed: bool
    may_be_vacuumed: bool

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class RoleSeen:
    """A role, as far as settings may be given to it.

    Parameters
    ----------
    name : str
    is_superuser : bool
    is_ours : bool
        Whether we work as it.
    may_log_in : bool
        Whether it has sessions: those of its members have nothing of its settings.
    may_be_set : bool
        Whether our role may run ``ALTER ROLE … SET`` for it.
    """

    name: str
    is_superuser: bool
    is_ours: bool
    may_log_in: bool
    may_be_set: bool
