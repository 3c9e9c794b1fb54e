"""What a lever is: the one protocol of all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ml_postgres_optimization.knobs.catalogue import Catalogue
from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.knobs.knob import KnobValue
from ml_postgres_optimization.knobs.machine import Machine
from ml_postgres_optimization.target.seen import BloatedTable, Blocker
from ml_postgres_optimization.telemetry import Window
from ml_postgres_optimization.tuning.preventing.danger import Danger
from ml_postgres_optimization.tuning.preventing.foresight import Foresight


@dataclass(frozen=True, slots=True)
class Sight:
    """What a lever may look at.

    Parameters
    ----------
    window : Window
        After which the danger was foretold.
    in_force : Configuration
    catalogue : Catalogue
    machine : Machine
    threshold : float
        Probability from which on something is a danger.
    foresight : Foresight or None
        Says what would be under another configuration; None where no forest was trained.
    """

    window: Window
    in_force: Configuration
    catalogue: Catalogue
    machine: Machine
    threshold: float
    foresight: Foresight | None = None

    def number(self, name: str) -> float | None:
        """Return a knob's value; None where it is not ours to tune."""
        value = self.in_force.get(name) if name in self.catalogue.tunable else None
        return None if value is None or isinstance(value, str) else float(value)


@dataclass(frozen=True, slots=True)
class Offer:
    """What a lever would do now; advice where it can do nothing by itself.

    Parameters
    ----------
    lever : str
    deed : str
        In a few words, for the user.
    values : mapping of str to KnobValue
        To be put in force as long as the danger lasts.
    blocker : Blocker or None
        A session to be ended.
    table : BloatedTable or None
        To be vacuumed.
    """

    lever: str
    deed: str
    values: Mapping[str, KnobValue] = field(default_factory=dict)
    blocker: Blocker | None = None
    table: BloatedTable | None = None

    @property
    def is_advice(self) -> bool:
        """Whether it is only told."""
        return not self.values and self.blocker is None and self.table is None


class Lever(Protocol):
    """Something that can be done about errors of some classes, and taken back."""

    name: str

    def offer(self, danger: Danger, sight: Sight) -> Offer | None:
        """Return what it would do, or advises, against `danger`; None where it does not help there."""
