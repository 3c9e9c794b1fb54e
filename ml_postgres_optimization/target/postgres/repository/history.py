"""What was in force when, as plain records."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


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
