"""An immutable set of knob values, and the way from one to another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ml_postgres_optimization.knobs.knob import KnobValue

CLIENT_PREFIX = "client."
CONCURRENCY = f"{CLIENT_PREFIX}concurrency"


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
