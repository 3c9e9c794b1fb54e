"""Scripts and how often each comes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.workload.script.command import Script
from ml_postgres_optimization.workload.script.expression import Stored

# Beyond, a round would be longer than any block.
_LONGEST_DECK = 1_000


@dataclass(frozen=True, slots=True)
class ScriptMix:
    """A load that consists of scripts; implements `workload.mix.Mix`.

    Parameters
    ----------
    scripts : tuple of Script
        Each with its weight.
    session_settings : mapping of str to str
        SET in every session.
    variables : mapping of str to number
        What every script can refer to.
    read_only : frozenset of str
        The scripts that write nothing, by the word of whoever wrote them.

    Raises
    ------
    UsageError
        If there is none with a weight above 0, or one is called read-only that is not there.
    """

    scripts: tuple[Script, ...]
    session_settings: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, Stored] = field(default_factory=dict)
    read_only: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not any(script.weight for script in self.scripts):
            raise UsageError("The workload has no script with a weight above 0.", "Give one of them a weight.")
        if unknown := sorted(self.read_only - {*self.names}):
            raise UsageError(
                f"There is no script {unknown[0]!r} to be read-only.", f"There are {', '.join(self.names)}."
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The scripts' names."""
        return tuple(script.name for script in self.scripts)

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of each script."""
        total = sum(script.weight for script in self.scripts)
        return tuple(script.weight / total for script in self.scripts)

    @property
    def transactional(self) -> frozenset[str]:
        """None: nobody has looked where a script's transactions end."""
        return frozenset()

    @property
    def deck(self) -> tuple[int, ...]:
        """One card for each time that a script comes in a round; none where a round would be too long."""
        divisor = math.gcd(*(script.weight for script in self.scripts))
        counts = [script.weight // divisor for script in self.scripts]
        if sum(counts) > _LONGEST_DECK:
            return ()
        return tuple(position for position, count in enumerate(counts) for _ in range(count))
