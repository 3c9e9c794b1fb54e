"""An immutable set of knob values, what they go by in it, and the way from one to another."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

from ml_postgres_optimization.knobs.knob import KnobValue

CLIENT_PREFIX = "client."
CONCURRENCY = f"{CLIENT_PREFIX}concurrency"
_OF_ROLE = re.compile(r'(?P<name>[a-z][a-z0-9_]*)@"(?P<role>(?:[^"]|"")+)"\."(?P<database>(?:[^"]|"")+)"')


class RoleSetting(NamedTuple):
    """What ``ALTER ROLE … IN DATABASE … SET`` gives to the new sessions of a role in a database.

    Of all that gives a session its settings it is the narrowest, and wins over the rest: only what the session sets
    for itself, or asks for when it connects, wins over it.

    Parameters
    ----------
    name : str
        As in ``pg_settings``.
    role, database : str

    Examples
    --------
    >>> setting = RoleSetting("lock_timeout", "app", "shop")
    >>> setting.key
    'lock_timeout@"app"."shop"'
    >>> RoleSetting.of(setting.key) == setting, RoleSetting.of("lock_timeout")
    (True, None)
    >>> print(setting)
    lock_timeout of role app in database shop

    References
    ----------
    PostgreSQL manual, ALTER ROLE, and the order in ``process_settings`` (src/backend/utils/init/postinit.c).
    """

    name: str
    role: str
    database: str

    @property
    def key(self) -> str:
        """What it goes by in a configuration and in the journal: no setting of the server has an ``@`` in it."""
        return f"{self.name}@{_quoted(self.role)}.{_quoted(self.database)}"

    @classmethod
    def of(cls, key: str) -> Self | None:
        """Return the setting that goes by `key`; None where that names none of a role."""
        found = _OF_ROLE.fullmatch(key)
        return None if found is None else cls(found["name"], _plain(found["role"]), _plain(found["database"]))

    def __str__(self) -> str:
        return f"{self.name} of role {self.role} in database {self.database}"


def is_of_role(key: str) -> bool:
    """Tell whether a name is that of a role's setting."""
    return RoleSetting.of(key) is not None


def described(key: str) -> str:
    """Return the name of a setting for people."""
    return str(RoleSetting.of(key) or key)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _plain(quoted: str) -> str:
    return quoted.replace('""', '"')


class Configuration(Mapping[str, KnobValue]):
    """An immutable, hashable mapping of knob names to values in base units.

    Parameters
    ----------
    values : mapping of str to bool, int, float or str

    Examples
    --------
    >>> stock = Configuration({"work_mem": 4096, "jit": True})
    >>> stock.id
    'f31a1e5eee59'
    >>> stock.replaced({"jit": False}).difference(stock)
    {'jit': (True, False)}
    """

    __slots__ = ("_id", "_values")

    def __init__(self, values: Mapping[str, KnobValue]) -> None:
        self._values = dict(sorted(values.items()))
        canonical = json.dumps({name: _canonical(value) for name, value in self._values.items()})
        self._id = hashlib.sha256(canonical.encode()).hexdigest()[:12]

    @property
    def id(self) -> str:
        """A short name that is the same wherever and whenever the same values are met."""
        return self._id

    def __getitem__(self, name: str) -> KnobValue:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(self._id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Configuration) and self._id == other._id

    def __repr__(self) -> str:
        return f"Configuration({self._values!r})"

    def replaced(self, values: Mapping[str, KnobValue]) -> Configuration:
        """Return a configuration with `values` put over this one's."""
        return Configuration({**self._values, **values})

    def difference(self, before: Configuration) -> dict[str, tuple[KnobValue | None, KnobValue | None]]:
        """Return each knob that differs with its value in `before` and here; None where it is absent."""
        return {
            name: (before.get(name), self.get(name))
            for name in sorted({*before, *self})
            if _canonical(before.get(name)) != _canonical(self.get(name))
        }


def _canonical(value: KnobValue | None) -> object:
    """Make 4.0 and 4 the same, as they are for the server; True stays apart from 1."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


@dataclass(frozen=True, slots=True)
class Change:
    """From one configuration to another."""

    before: Configuration
    after: Configuration

    @property
    def knobs(self) -> dict[str, tuple[KnobValue | None, KnobValue | None]]:
        """Each knob that changes, with its old and new value."""
        return self.after.difference(self.before)

    @property
    def is_ours(self) -> bool:
        """Whether only our own side changes, and the server does not hear of it."""
        return all(name.startswith(CLIENT_PREFIX) for name in self.knobs)

    @property
    def reverse(self) -> Change:
        """The way back."""
        return Change(self.after, self.before)
