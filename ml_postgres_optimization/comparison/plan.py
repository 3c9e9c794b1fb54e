"""Which blocks are measured, and in which order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ml_postgres_optimization.comparison.arm import Arm, Part, arms
from ml_postgres_optimization.workload import Level

# Caches fill, plans become generic, the limiter begins to learn: what is offered then is not counted.
_WARM_UP_RATIO, _LONGEST_WARM_UP_SECONDS = 0.25, 5.0
# Far apart, so that no two blocks of one run share a seed.
_SEEDS_OF_A_RUN, _SEEDS_OF_A_ROUND = 1_000_003, 101


@dataclass(frozen=True, slots=True)
class Cell:
    """All arms once, one after the other, at one level: what is compared with each other.

    Parameters
    ----------
    round : int
        From 0.
    level : Level
    arms : tuple of Arm
        In the order in which they are measured.
    seed : int
        Of the arrivals, the operations and the faults: the same for every arm.
    """

    round: int
    level: Level
    arms: tuple[Arm, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class ComparisonPlan:
    """How much is measured.

    Parameters
    ----------
    levels : tuple of Level
    rounds : int
        Blocks of each arm at each level.
    block_seconds : float
        That are counted of each; longer where a level's operations need it.
    seed : int
    with_ablation : bool
        Whether the parts of what is optimised are measured one by one, too.
    idle : frozenset of Part
        Parts that can do nothing here, and are not measured.
    """

    levels: tuple[Level, ...]
    rounds: int = 5
    block_seconds: float = 20.0
    seed: int = 1
    with_ablation: bool = True
    idle: frozenset[Part] = frozenset()

    @property
    def arms(self) -> tuple[Arm, ...]:
        """What is compared."""
        return arms(with_ablation=self.with_ablation, idle=self.idle)

    @property
    def block_count(self) -> int:
        """How many blocks there are in all."""
        return self.rounds * len(self.levels) * len(self.arms)

    @property
    def warm_up_seconds(self) -> float:
        """How long the load runs before it counts."""
        return min(_WARM_UP_RATIO * self.block_seconds, _LONGEST_WARM_UP_SECONDS)

    def cells(self) -> Iterator[Cell]:
        """Yield all cells in order.

        From cell to cell, and for each level from round to round, the order of the arms is turned round: A B B A. So
        what drifts evenly strikes all arms alike, and the configuration changes once in a cell.
        """
        for number in range(self.rounds):
            for place, level in enumerate(self.levels):
                order = self.arms if (number + place) % 2 == 0 else self.arms[::-1]
                seed = self.seed * _SEEDS_OF_A_RUN + number * _SEEDS_OF_A_ROUND + place
                yield Cell(number, level, order, seed)

    def seconds_of(self, level: Level, rate_per_second: float) -> float:
        """Return how long a block counts, so that it has the level's operations at least.

        Examples
        --------
        >>> from ml_postgres_optimization.workload import LEVELS
        >>> ComparisonPlan(tuple(LEVELS.values())).seconds_of(LEVELS["EXTREME"], 250.0)
        40.0
        """
        return max(self.block_seconds, level.operations / rate_per_second)
