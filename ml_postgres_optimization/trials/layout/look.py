"""The pairs of a trial, the first of which show whether enough is discarded before their blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import NamedTuple

from ml_postgres_optimization.telemetry import Window, merge
from ml_postgres_optimization.trials.layout.blocks import Blocks, discarded_seconds
from ml_postgres_optimization.trials.layout.design import Switch
from ml_postgres_optimization.trials.layout.settling import transient_steps
from ml_postgres_optimization.trials.objective import mean_seconds_like
from ml_postgres_optimization.trials.proposal import Arm, Design

_STEP_SECONDS = 0.5
_FEWEST_STEPS, _MOST_STEPS = 8, 20


class RunPair(NamedTuple):
    """The blocks of a pair, and whether they may be compared; else the settled part of each, for the guards."""

    windows: Mapping[Arm, Window]
    is_settled: bool


class Looks:
    """Runs the pairs of one trial, and looks into the blocks of the first: has the response settled where they begin?

    A pair in which it has not is left out, and from the second time on more is discarded before every later block,
    of both arms. As the blocks of one pair would say the same if they were exchanged, whether it is left out tells
    nothing about the coin; and the length is fixed before the coins of the pairs that come. So the sequential test
    holds as it does without.

    Parameters
    ----------
    blocks : Blocks

    Attributes
    ----------
    left_out : int
        Pairs that were.
    is_cut_off : bool
        Whether the response takes longer to settle than the plan allows to discard.
    """

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._switch = Switch.of(blocks.change, blocks.design)
        self._steps = min(_MOST_STEPS, int(blocks.plan.block_seconds / _STEP_SECONDS))
        # a switch to the candidate and one back
        self._switches_to_see = 2 if blocks.settling and self._steps >= _FEWEST_STEPS else 0
        self._suspected_seconds = 0.0
        self.left_out = 0
        self.is_cut_off = False

    @property
    def figures(self) -> dict[str, float]:
        """What was discarded before the last blocks, and what it took to find out."""
        found = {"settle_pairs_left_out": float(self.left_out), "settle_is_cut_off": float(self.is_cut_off)}
        return {"settle_seconds": discarded_seconds(self._blocks)} | {name: n for name, n in found.items() if n}

    def pair(self, candidate_first: bool, reference: Window) -> RunPair:
        """Run a block of each arm, the response being that of the mix of `reference`."""
        if self._switches_to_see <= 0:
            return RunPair(self._blocks.pair(candidate_first), is_settled=True)
        traces = self._blocks.traced_pair(candidate_first, self._steps)
        unsettled = transient_steps(
            [[mean_seconds_like(reference, window) for window in trace] for trace in traces.values()]
        )
        is_left_out = self._has_to_go(unsettled, candidate_first)
        self.left_out += is_left_out
        return RunPair(_merged(traces, unsettled if is_left_out else 0), not is_left_out)

    def _has_to_go(self, unsettled: int, candidate_first: bool) -> bool:
        """Take note of a look; what nothing can be done about stays in."""
        settling, plan = self._blocks.settling, self._blocks.plan
        if not unsettled or settling is None:
            self._suspected_seconds = 0.0
            # with the baseline first, its block may follow another one of its own
            shows_both = candidate_first or self._blocks.design is not Design.SWITCHBACK
            self._switches_to_see -= 2 if shows_both else 1
            return False
        seconds = unsettled * plan.block_seconds / self._steps
        is_longest = settling.is_longest(plan, self._switch)
        if not self._suspected_seconds:
            self._suspected_seconds, self._switches_to_see = seconds, 1
        elif is_longest:
            self.is_cut_off, self._switches_to_see = True, 0
        else:
            settling.grow(plan, self._switch, max(seconds, self._suspected_seconds))
            self._suspected_seconds, self._switches_to_see = seconds, 2
        return not is_longest


def _merged(traces: Mapping[Arm, Sequence[Window]], unsettled: int) -> dict[Arm, Window]:
    return {arm: reduce(merge, trace[unsettled:]) for arm, trace in traces.items()}
