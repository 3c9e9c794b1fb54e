"""``ALTER SYSTEM`` and reload, as PostgreSQL does them: written is one thing, in force another."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ml_postgres_optimization.errors import ChangeRefused
from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.knobs.knob import KnobValue, Setting
from ml_postgres_optimization.target.simulated.stock import STOCK

_FILE = "configuration file"
# https://www.postgresql.org/docs/current/config-setting.html#CONFIG-SETTING-NAMES-VALUES
_BOOLEANS = {"on": True, "true": True, "yes": True, "1": True, "off": False, "false": False, "no": False, "0": False}


class SettingsFile:
    """The settings of a simulated server, and its ``postgresql.auto.conf``."""

    def __init__(self) -> None:
        self._stock = dict(STOCK)
        self._in_force = dict(STOCK)
        self._written: dict[str, str] = {}
        self._look()

    def settings(self, names: Iterable[str]) -> dict[str, Setting]:
        """Return what a fresh session sees; a name that there is not is absent."""
        return {name: self._seen[name] for name in names if name in self._seen}

    @property
    def configuration(self) -> Configuration:
        """The values in force."""
        return self._configuration

    def _look(self) -> None:
        """Make up what is seen from now on: it is asked for far more often than it changes."""
        self._seen = {
            name: replace(setting, written_value=self._written.get(name)) for name, setting in self._in_force.items()
        }
        self._configuration = Configuration({name: setting.value for name, setting in self._in_force.items()})

    def write(self, name: str, value: KnobValue) -> None:
        """Write `value` into the file, in force after `reload`.

        Raises
        ------
        ChangeRefused
            If there is no such setting, it cannot be changed, or the value is of another type or out of range.
        """
        if name not in self._stock:
            raise ChangeRefused(f"unrecognized configuration parameter {name!r}", "Name a setting of pg_settings.")
        setting = self._stock[name]
        if setting.context == "internal":
            raise ChangeRefused(f"parameter {name!r} cannot be changed", "It was fixed when the server was built.")
        text = _as_text(value)
        _parse(setting, text)
        self._written[name] = text
        self._look()

    def restore(self, name: str, written_value: str | None) -> None:
        """Put `written_value` back into the file, or take the setting out of it.

        Raises
        ------
        ChangeRefused
            As `write`.
        """
        if written_value is None:
            self._written.pop(name, None)
            self._look()
        else:
            self.write(name, written_value)

    def reload(self) -> None:
        """Make the file take effect, except for what needs a restart."""
        self._in_force = {name: self._reloaded(name) for name in self._stock}
        self._look()

    def restart(self) -> None:
        """Make the whole file take effect."""
        self._in_force = {name: self._started(name) for name in self._stock}
        self._look()

    def _started(self, name: str) -> Setting:
        stock, text = self._stock[name], self._written.get(name)
        return stock if text is None else replace(stock, value=_parse(stock, text), source=_FILE)

    def _reloaded(self, name: str) -> Setting:
        if self._stock[name].context == "postmaster":
            return replace(self._in_force[name], pending_restart=self._pends(name))
        return self._started(name)

    def _pends(self, name: str) -> bool:
        in_force, text = self._in_force[name], self._written.get(name)
        if text is not None:
            return _parse(in_force, text) != in_force.value
        if in_force.value != self._stock[name].value:
            return True
        # PostgreSQL looks again at what a file says only; a default once pending stays so (seen on 14 to 18)
        return in_force.pending_restart and in_force.source != _FILE


def _as_text(value: KnobValue) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _parse(setting: Setting, text: str) -> KnobValue:
    """Return the value that `text` means, in the setting's base unit.

    Raises
    ------
    ChangeRefused
        If it means none, or one that is out of range.
    """
    if setting.kind in {"bool", "enum"}:
        return _parse_choice(setting, text)
    low, high, number = setting.minimum, setting.maximum, _number(setting, text)
    if low is None or high is None or not low <= number <= high:
        raise ChangeRefused(f"{setting.name}: {text} is outside of {low} to {high}", "Choose a value inside.")
    return round(number) if setting.kind == "integer" else number


def _number(setting: Setting, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ChangeRefused(f"{setting.name}: {text!r} is no number", f"Its type is {setting.kind}.") from None


def _parse_choice(setting: Setting, text: str) -> KnobValue:
    meant = _BOOLEANS.get(text.lower()) if setting.kind == "bool" else text.lower()
    if meant is None or (setting.enumvals and meant not in setting.enumvals):
        raise ChangeRefused(f"{setting.name}: {text!r} is no value of it", "Choose one of pg_settings.enumvals.")
    return meant
