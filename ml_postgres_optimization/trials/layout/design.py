"""How a trial is laid out in time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.knobs.configuration import Change
from ml_postgres_optimization.trials.objective import Measure
from ml_postgres_optimization.trials.proposal import Design
from ml_postgres_optimization.trials.verdict import Guards, Thresholds

_SHORTEST_RELOAD_SETTLE_SECONDS = 2.0
# However long a response takes to settle: a third of the time of a trial is measured at least.
_LONGEST_SETTLE_OF_BLOCK = 2.0
_LONGEST_SETTLE_SECONDS = 30.0


class Switch(StrEnum):
    """What puts the other arm in force: something of our own side, a reload or a restart."""

    CLIENT = "client"
    RELOAD = "reload"
    RESTART = "restart"

    @classmethod
    def of(cls, change: Change | None, design: Design) -> Switch:
        """Return what `change` needs; a reload, if unknown."""
        if design is Design.RESTART:
            return cls.RESTART
        is_ours = design is Design.CONCURRENT or (change is not None and change.is_ours)
        return cls.CLIENT if is_ours else cls.RELOAD


@dataclass(frozen=True, slots=True)
class Deadline:
    """Until when a trial may go on, in monotonic seconds.

    Parameters
    ----------
    last_seconds : float
        No pair is begun from then on.
    fair_seconds : float
        From then on the trial goes on only as long as its evidence would suffice before `last_seconds`, were it to
        grow as it has. So a trial that tells nothing leaves time to others, and one that is about to promote is not
        cut; nor goes one on that has its evidence, and is held up by something else.
    """

    last_seconds: float = math.inf
    fair_seconds: float = math.inf

    def is_over(self, now_seconds: float, *, began_seconds: float, progress: float) -> bool:
        """Tell whether a trial has to end that has gathered `progress`, from 0 to 1, of the evidence it needs."""
        if now_seconds >= self.last_seconds:
            return True
        if now_seconds < self.fair_seconds:
            return False
        if progress >= 1:
            return True
        needed_seconds = (now_seconds - began_seconds) / progress if progress > 0 else math.inf
        return began_seconds + needed_seconds > self.last_seconds


NEVER = Deadline()


@dataclass(frozen=True, slots=True)
class TrialPlan:
    """How long the blocks of a trial are, and what decides it.

    Parameters
    ----------
    block_seconds : float
        Length of the measured part of a block.
    settle_seconds : float
        Discarded before a block at least, 2 or more, whether or not its arm changed: a backend reads new settings
        after a reload between two commands. Only time passes; a command that runs longer ends under the old ones.
    client_settle_seconds : float
        The same where only our own side changes, ``client.concurrency`` or what our sessions SET: no backend has to
        hear of it.
    warm_up_seconds : float
        The same after a restart of the server, under load, in which its caches fill.
    restart_seconds : float
        What a restart itself is expected to take.
    max_pairs : int
        When the budget of the trial is over.
    thresholds, guards : Thresholds, Guards
    alpha : float
        Probability that the interval ever misses the truth; an equal candidate is promoted with half of it at most.
    measure : Measure
        The objective.

    Raises
    ------
    UsageError
        If a length is not positive, or shorter than it must be.
    """

    block_seconds: float = 5.0
    settle_seconds: float = _SHORTEST_RELOAD_SETTLE_SECONDS
    client_settle_seconds: float = 1.0
    warm_up_seconds: float = 10.0
    restart_seconds: float = 4.0
    max_pairs: int = 30
    alpha: float = 0.05
    measure: Measure = Measure.MEAN
    thresholds: Thresholds = field(default_factory=Thresholds)
    guards: Guards = field(default_factory=Guards)

    def __post_init__(self) -> None:
        if self.settle_seconds < _SHORTEST_RELOAD_SETTLE_SECONDS:
            raise UsageError(
                f"a reload needs at least {_SHORTEST_RELOAD_SETTLE_SECONDS:g} s to settle, "
                f"{self.settle_seconds:g} s are too few.",
                "Choose a longer settle time.",
            )
        if self.block_seconds <= 0 or min(self.client_settle_seconds, self.warm_up_seconds) < 0 or self.max_pairs < 1:
            raise UsageError(
                f"a trial of {self.max_pairs} pairs of {self.block_seconds:g} s cannot be held.",
                "Choose at least one pair, and blocks longer than nothing.",
            )

    def settle_seconds_for(self, switch: Switch) -> float:
        """Return what is discarded after such a switch, at least."""
        return {
            Switch.CLIENT: self.client_settle_seconds,
            Switch.RELOAD: self.settle_seconds,
            Switch.RESTART: self.warm_up_seconds,
        }[switch]

    def longest_settle_seconds_for(self, switch: Switch) -> float:
        """Return what is discarded at most, where the data ask for more."""
        longest = min(_LONGEST_SETTLE_SECONDS, _LONGEST_SETTLE_OF_BLOCK * self.block_seconds)
        return max(self.settle_seconds_for(switch), longest)

    def seconds_for(self, pairs: int, change: Change | None = None, design: Design = Design.SWITCHBACK) -> float:
        """Return how long `pairs` pairs take, the reference block before them included; a reload's, if unknown."""
        blocks = pairs + 1 if design is Design.CONCURRENT else 2 * pairs + 1
        restart_seconds = self.restart_seconds if design is Design.RESTART else 0.0
        settle_seconds = self.settle_seconds_for(Switch.of(change, design))
        return blocks * (self.block_seconds + restart_seconds + settle_seconds)
