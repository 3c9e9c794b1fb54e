"""What is compared: a base, each part of what this product adds, and all of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Part(StrEnum):
    """A part of what an optimised application has, and base has not.

    Each becomes an arm of the ablation, and belongs to the optimised arm; what a part means for a block is decided in
    `measuring.block.load_plan`, for the server's configuration in the stage.
    """

    LIMITER = "limiter"
    """As many operations at once as the server answers best."""
    RETRIES = "retries"
    """Operations that fail in a way that passes are done again."""
    PREVENTION = "prevention"
    """Fewer operations at once for as long as the error forest foretells errors."""
    CONFIGURATION = "configuration"
    """The configuration that was proven on the server, and the number of connections that goes with it."""


@dataclass(frozen=True, slots=True)
class Arm:
    """What one block is measured with.

    Parameters
    ----------
    name : str
    parts : frozenset of Part
    """

    name: str
    parts: frozenset[Part]

    @property
    def is_configured(self) -> bool:
        """Whether the proven configuration is in force."""
        return Part.CONFIGURATION in self.parts


BASE = Arm("base", frozenset())
OPTIMISED = Arm("optimised", frozenset(Part))
ABLATION = tuple(Arm(f"{part} only", frozenset({part})) for part in Part)


def arms(*, with_ablation: bool, idle: frozenset[Part] = frozenset()) -> tuple[Arm, ...]:
    """Return what is compared, those under the same configuration beside each other.

    Parameters
    ----------
    with_ablation : bool
    idle : frozenset of Part
        That can do nothing here: they are no arm by themselves, and not in the optimised one.

    Examples
    --------
    >>> [arm.name for arm in arms(with_ablation=True)]
    ['base', 'limiter only', 'retries only', 'prevention only', 'configuration only', 'optimised']
    >>> [arm.name for arm in arms(with_ablation=True, idle=frozenset({Part.PREVENTION}))]
    ['base', 'limiter only', 'retries only', 'configuration only', 'optimised']
    """
    parts = [arm for arm in ABLATION if not arm.parts & idle] if with_ablation else []
    return (BASE, *parts, Arm(OPTIMISED.name, OPTIMISED.parts - idle))
