"""The blocks of a trial, the last of each arm kept."""

from __future__ import annotations

from collections.abc import Mapping

from ml_postgres_optimization.knobs.configuration import Change, Configuration
from ml_postgres_optimization.telemetry import Window
from ml_postgres_optimization.trials import Arm, Blocks, Design, TrialPlan


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

    def baseline(self) -> Window:
        """Run a block of the baseline."""
        self.last[Arm.BASELINE] = window = self._blocks.baseline()
        return window

    def pair(self, candidate_first: bool) -> Mapping[Arm, Window]:
        """Run a block of each arm."""
        windows = self._blocks.pair(candidate_first)
        self.last.update(windows)
        return windows

    def leave(self, configuration: Configuration) -> None:
        """Leave the baseline or the candidate in force for everybody."""
        self._blocks.leave(configuration)
