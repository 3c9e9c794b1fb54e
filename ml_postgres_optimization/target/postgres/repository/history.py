"""What was in force when, as plain records."""

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
class Period:
    """A value of a setting, and how long it stood; what was on trial only, and not promoted, interrupts nothing.

    Parameters
    ----------
    name, value : str
    unit : str or None
    since : datetime
    until : datetime or None
        When the next proven value came; None while there is none.
    not_before : datetime
        The change came after this, and not after `since`.
    brought_by : str
        ``first seen``, ``trial``, ``rollback``, ``undo`` or ``somebody else``.
    trial_id : str or None
    """

    name: str
    value: str
    unit: str | None
    since: datetime
    until: datetime | None
    not_before: datetime
    brought_by: str
    trial_id: str | None = None

    @property
    def is_ours(self) -> bool:
        """Whether we brought it."""
        return self.brought_by in {"trial", "rollback", "undo"}


@dataclass(frozen=True, slots=True)
class SettingChange:
    """A change of a setting, with its values as people write them.

    Parameters
    ----------
    at, not_before : datetime
        It came after `not_before`, and not after `at`.
    name : str
    old : str or None
        None where what was there before is not kept any more.
    new, brought_by : str
    trial_id : str or None
    """

    at: datetime
    name: str
    old: str | None
    new: str
    brought_by: str
    trial_id: str | None
    not_before: datetime


@dataclass(frozen=True, slots=True)
class Known:
    """How far the history of a server's configuration reaches.

    Parameters
    ----------
    server : str
    known_since, observed_at : datetime
        From when on it is whole, and when somebody looked last.
    """

    server: str
    known_since: datetime
    observed_at: datetime
