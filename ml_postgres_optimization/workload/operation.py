"""What the load consists of: kinds of operations, their mix, and the levels of the specification."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from ml_postgres_optimization.errors import UsageError


class OperationKind(StrEnum):
    """What one operation does to our own tables."""

    READ = "read"
    WRITE = "write"
    UPDATE = "update"
    DELETE = "delete"
    TRANSACTION = "transaction"
    BULK_INSERT = "bulk_insert"
    AGGREGATE = "aggregate"
    JOIN = "join"


_READ_ONLY = frozenset({OperationKind.READ.value, OperationKind.AGGREGATE.value, OperationKind.JOIN.value})


@dataclass(frozen=True, slots=True)
class OperationMix:
    """The share of each kind.

    Parameters
    ----------
    weights : mapping of OperationKind to float
        Not negative, not all zero; they need not add up to one.

    Raises
    ------
    UsageError
        If a weight is negative or no number, all are zero, or a kind is unknown.

    Examples
    --------
    >>> OperationMix({OperationKind.READ: 3, OperationKind.WRITE: 1}).shares
    (0.75, 0.25, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    """

    weights: Mapping[OperationKind, float]

    def __post_init__(self) -> None:
        for kind, weight in self.weights.items():
            if kind not in tuple(OperationKind):
                raise UsageError(f"there is no operation kind {kind!r}", f"Choose from {', '.join(OperationKind)}.")
            if not (math.isfinite(weight) and weight >= 0):
                raise UsageError(f"the weight of {kind} is {weight}", "Weights are numbers from 0 up.")
        if not any(self.weights.values()):
            raise UsageError("the mix of operations is empty", "Give at least one kind a weight above 0.")

    @property
    def names(self) -> tuple[str, ...]:
        """Every kind, in the order of `shares`; as samples call it."""
        return tuple(kind.value for kind in OperationKind)

    @property
    def read_only(self) -> frozenset[str]:
        """The kinds that write nothing."""
        return _READ_ONLY

    @property
    def transactional(self) -> frozenset[str]:
        """Every kind: one transaction, or one statement, which is one by itself."""
        return frozenset(self.names)

    @property
    def deck(self) -> tuple[int, ...]:
        """No cards: kinds are drawn one by one, as users come."""
        return ()

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of every kind, in the order of `OperationKind`; they add up to one."""
        largest = max(self.weights.values())
        # scaled before they are added, so that huge weights do not add up to infinity
        scaled = [self.weights.get(kind, 0.0) / largest for kind in OperationKind]
        return tuple(weight / math.fsum(scaled) for weight in scaled)

    @property
    def kinds(self) -> tuple[OperationKind, ...]:
        """The kinds that occur at all."""
        return tuple(kind for kind in OperationKind if self.weights.get(kind, 0.0) > 0)


@dataclass(frozen=True, slots=True)
class Level:
    """One of the specification's load levels.

    Parameters
    ----------
    name : str
    operations : int
        Operations in one round.
    clients : int
        Users that are served at once; how many connections they share is the knob ``client.concurrency``.
    capacity_ratio : float
        Offered load, as a share of the closed-loop capacity of the base configuration.
    mix : OperationMix
    """

    name: str
    operations: int
    clients: int
    capacity_ratio: float
    mix: OperationMix


def _mix(read: float, write: float, update: float, transaction: float, delete: float) -> OperationMix:
    return OperationMix(
        {
            OperationKind.READ: read,
            OperationKind.WRITE: write,
            OperationKind.UPDATE: update,
            OperationKind.TRANSACTION: transaction,
            OperationKind.DELETE: delete,
        }
    )


# The mixes of the report behind the specification: mission, the table of load levels.
LEVELS: Mapping[str, Level] = {
    level.name: level
    for level in (
        Level("BASIC", 100, 50, 0.05, _mix(23, 38, 18, 13, 8)),
        Level("MEDIUM", 1_000, 500, 0.30, _mix(20, 41, 20, 11, 8)),
        Level("HIGH", 5_000, 500, 0.60, _mix(20, 39, 19, 12, 10)),
        Level("EXTREME", 10_000, 500, 0.80, _mix(20, 40, 20, 11, 9)),
    )
}

SOAK_MIX = _mix(45, 30, 15, 5, 5)
