"""How long the response takes to settle after a switch, and what a campaign knows of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ml_postgres_optimization.trials.layout.design import Switch, TrialPlan

# By simulation, docs/decisions/0018-settle-length.md: under stationary noise, two looks in a row are this far out in
# 1 of 1000 trials, or in 3 of 100 where short windows correlate by a half.
_DEVIATIONS = 4.0
# A single window further out than the rest may be a stall; what decays has all of its windows on one side.
_DEVIATIONS_OF_EACH = 1.0
# Log-ratio: what is less than 2 % off, 4 of these, is nothing that a trial could tell either.
_SMALLEST_DEVIATION = 0.005
# A length that is too short costs a pair of blocks to find out, so it grows in few steps.
_LEAST_GROWTH = 1.5


def transient_steps(traces: Sequence[Sequence[float]]) -> int:
    """Return how many of the first windows differ from what follows; 0 where none does, or too few are known.

    The second half of a trace is taken for settled, and its noise, that of all traces together, for the noise of the
    first. The windows of a transient, from the first on, are all on one side of it, and on average too far from it
    for chance. The largest number over the traces counts: it stays the same when they are exchanged, or when one is
    multiplied by a constant, and so it knows nothing of which one is the better.

    Parameters
    ----------
    traces : sequence of sequences of float
        Of each block the response in short windows of one length, in the order of time; all of the same number.

    Examples
    --------
    >>> transient_steps([[0.030, 0.020, 0.010, 0.010, 0.010, 0.010], [0.010, 0.010, 0.010, 0.010, 0.010, 0.010]])
    2

    References
    ----------
    Truncation of initial transients: K. P. White, "An effective truncation heuristic for bias reduction in simulation
    output", Simulation 69 (1997). Its minimum (MSER) truncates stationary series too, in 6 or 8 of 10 traces as short
    as ours (docs/decisions/0018-settle-length.md); hence a test against the settled half.
    """
    known = np.array(traces, dtype=float)
    if not np.all(known > 0):
        return 0
    logarithms = np.log(known)
    head, tail = np.split(logarithms, [known.shape[1] // 2], axis=1)
    deviation = max(math.sqrt(float(tail.var(axis=1, ddof=1).mean())), _SMALLEST_DEVIATION)
    distances = (head - tail.mean(axis=1, keepdims=True)) / deviation
    return max(_length(distance, tail.shape[1]) for distance in distances)


def _length(distance: np.ndarray, settled: int) -> int:
    sign = np.sign(distance[0])
    on_its_side = np.cumprod(sign * distance >= _DEVIATIONS_OF_EACH).astype(bool)
    steps = np.arange(1, len(distance) + 1)
    far_out = np.abs(np.cumsum(distance) / steps) >= _DEVIATIONS * np.sqrt(1 / steps + 1 / settled)
    found = steps[on_its_side & far_out]
    return int(found[-1]) if len(found) else 0


@dataclass(slots=True)
class Settling:
    """What a campaign has learned of the time that is discarded after a switch; it only grows.

    Parameters
    ----------
    learned_seconds : dict of Switch to float
        Where it was found to be longer than planned.
    """

    learned_seconds: dict[Switch, float] = field(default_factory=dict)

    def applied_to(self, plan: TrialPlan) -> TrialPlan:
        """Return the plan with what is known by now, within its limits."""
        client, reload, restart = (self._seconds(plan, switch) for switch in Switch)
        return replace(plan, client_settle_seconds=client, settle_seconds=reload, warm_up_seconds=restart)

    def is_longest(self, plan: TrialPlan, switch: Switch) -> bool:
        """Tell whether `plan` allows no more."""
        return self._seconds(plan, switch) >= plan.longest_settle_seconds_for(switch)

    def grow(self, plan: TrialPlan, switch: Switch, seconds: float) -> None:
        """Discard `seconds` more after such a switch from now on, or half as much again, within the plan's limit."""
        now_seconds = self._seconds(plan, switch)
        wanted_seconds = max(now_seconds + seconds, _LEAST_GROWTH * now_seconds)
        self.learned_seconds[switch] = min(wanted_seconds, plan.longest_settle_seconds_for(switch))

    def _seconds(self, plan: TrialPlan, switch: Switch) -> float:
        learned_seconds = min(self.learned_seconds.get(switch, 0.0), plan.longest_settle_seconds_for(switch))
        return max(plan.settle_seconds_for(switch), learned_seconds)
