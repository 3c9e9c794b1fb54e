"""The blocks of a trial, the last of each arm kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

from ml_postgres_optimization.knobs.configuration import Change, Configuration
from ml_postgres_optimization.telemetry import Window, merge
from ml_postgres_optimization.trials import Arm, Blocks, Design, Settling, TrialPlan


class LastBlocks:
    """Blocks that remember the last window of each arm; they implement `trials.Blocks`.

    Parameters
    ----------
    blocks : Blocks

    Attributes
    ----------
    last : dict of Arm to Window
    """

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self.last: dict[Arm, Window] = {}

    @property
    def design(self) -> Design:
        """How a pair is laid out."""
        return self._blocks.design

    @property
    def change(self) -> Change:
        """From the baseline to the candidate."""
        return self._blocks.change

    @property
    def plan(self) -> TrialPlan:
        """Lengths, limits and objective."""
        return self._blocks.plan

    @property
    def settling(self) -> Settling | None:
        """What is known of how long the response takes to settle."""
        return self._blocks.settling

    def baseline(self) -> Window:
        """Run a block of the baseline."""
        self.last[Arm.BASELINE] = window = self._blocks.baseline()
        return window

    def pair(self, candidate_first: bool) -> Mapping[Arm, Window]:
        """Run a block of each arm."""
        windows = self._blocks.pair(candidate_first)
        self.last.update(windows)
        return windows

    def traced_pair(self, candidate_first: bool, steps: int) -> Mapping[Arm, Sequence[Window]]:
        """Run the same, and return each block in `steps` short windows."""
        traces = self._blocks.traced_pair(candidate_first, steps)
        self.last.update({arm: reduce(merge, trace) for arm, trace in traces.items()})
        return traces

    def leave(self, configuration: Configuration) -> None:
        """Leave the baseline or the candidate in force for everybody."""
        self._blocks.leave(configuration)
