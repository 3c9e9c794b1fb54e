"""What ``ALTER ROLE … IN DATABASE … SET`` gives, on a simulated server with one application."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ml_postgres_optimization.errors import ChangeRefused
from ml_postgres_optimization.knobs.configuration import RoleSetting
from ml_postgres_optimization.knobs.knob import KnobValue, Setting
from ml_postgres_optimization.knobs.rendering import parse, written_text
from ml_postgres_optimization.target.seen import RoleSeen

APPLICATION = "application"
_LIMITS = frozenset({"lock_timeout", "idle_in_transaction_session_timeout"})
_INT_MAX = 2147483647


class SimulatedRoles:
    """The settings of the role ``application``, which has two time limits, without any at first."""

    def __init__(self, database: str) -> None:
        self._database = database
        self._written: dict[str, str] = {}

    def settings(self, keys: Iterable[str]) -> Mapping[str, Setting]:
        """Return what new sessions of the role have; of any other role, nothing."""
        return {key: self._setting(key) for key in keys if self._is_there(key)}

    def role(self, name: str) -> RoleSeen | None:
        """Return what a role is; None where there is none of that name."""
        return RoleSeen(name, False, False, True, True) if name == APPLICATION else None

    def write(self, key: str, value: KnobValue) -> None:
        """Give `value` to the role's new sessions.

        Raises
        ------
        ChangeRefused
            If there is no such role or setting, or the value is no number that it may have.
        """
        self.restore(key, written_text(value))

    def restore(self, key: str, written_value: str | None) -> None:
        """Put back what stood there, or nothing.

        Raises
        ------
        ChangeRefused
            As `write`.
        """
        if not self._is_there(key):
            raise ChangeRefused(f"{key} was not changed: there is no such setting of a role.", "Name another.")
        if written_value is None:
            self._written.pop(key, None)
            return
        try:
            is_allowed = 0 <= float(parse(written_value, "integer", "ms")) <= _INT_MAX
        except ValueError:
            is_allowed = False
        if not is_allowed:
            raise ChangeRefused(f"{key} = {written_value} is no value of it.", "Give milliseconds.")
        self._written[key] = written_value

    def _is_there(self, key: str) -> bool:
        setting = RoleSetting.of(key)
        return setting is not None and setting[1:] == (APPLICATION, self._database) and setting.name in _LIMITS

    def _setting(self, key: str) -> Setting:
        written = self._written.get(key)
        value = parse(written or "0", "integer", "ms")
        source = "default" if written is None else "database user"
        return Setting(key, value, "integer", "ms", "user", source, 0, _INT_MAX, (), "0", False, written)
