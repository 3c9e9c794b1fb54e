"""One setting that somebody else is to set."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ml_postgres_optimization.knobs.knob import KnobValue, Setting
from ml_postgres_optimization.knobs.rendering import render, written_text


@dataclass(frozen=True, slots=True)
class Item:
    """A setting and its value, with what the ways of setting it need to know.

    Parameters
    ----------
    name : str
    value : KnobValue
        In the base `unit` of ``pg_settings``.
    unit : str or None
    needs_restart : bool
    is_sessions_own : bool
        Whether every role may set it for itself, so that ``ALTER DATABASE`` reaches it.
    """

    name: str
    value: KnobValue
    unit: str | None = None
    needs_restart: bool = False
    is_sessions_own: bool = False

    @classmethod
    def of(cls, setting: Setting, value: KnobValue) -> Item:
        """Make one of what the live server says of the setting."""
        return cls(
            setting.name,
            value,
            setting.unit,
            needs_restart=setting.context == "postmaster",
            is_sessions_own=setting.context == "user",
        )

    @property
    def text(self) -> str:
        """The value as people write it, with its unit: ``64MB``."""
        return render(self.value, self.unit)

    @property
    def plain(self) -> str:
        """The value without a unit, in the base unit: ``65536`` for 64 MB of kB, ``16384`` for 128 MB of 8kB."""
        return written_text(self.value)


def names_of(items: Iterable[Item]) -> str:
    """List the names for a sentence."""
    return ", ".join(item.name for item in items)
