"""Candidates put over each other without being proven, and taken down again in reverse order."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Self

from ml_postgres_optimization.knobs.configuration import Change, Configuration
from ml_postgres_optimization.telemetry import Window
from ml_postgres_optimization.trials import Arm, OnPair, Proposal, Trial, TrialPlan, run_trial
from ml_postgres_optimization.tuning.laboratory import Laboratory
from ml_postgres_optimization.tuning.offline.last_blocks import LastBlocks


class Ladder:
    """A context in which candidates are screened; what is preferred stays in force until it ends, and no longer.

    Every rung is a trial that stays open in the journal: whatever kills us, the next start takes them down, the
    newest first, until what was in force at the beginning is in force again.

    Parameters
    ----------
    laboratory : Laboratory
    initial : Configuration
        In force now.
    reference : Window
        A block of `initial`, measured just now.
    """

    def __init__(self, laboratory: Laboratory, initial: Configuration, reference: Window) -> None:
        self._laboratory = laboratory
        self._rungs = ExitStack()
        self._reference = reference
        self.incumbent = initial

    def screen(self, proposal: Proposal, plan: TrialPlan, *, on_pair: OnPair | None = None) -> Trial:
        """Try `proposal` against the incumbent; where it is preferred, it is the incumbent from now on.

        Raises
        ------
        ChangeRefused
            If the guard or the server refuses it; nothing has changed then.
        TargetError, JournalError
            If the server or the journal fails.
        """
        laboratory, change = self._laboratory, Change(self.incumbent, proposal.configuration)
        trial_id = laboratory.new_trial_id()
        with ExitStack() as rung:
            guarded = rung.enter_context(laboratory.guard.trial(change, trial_id))
            blocks = LastBlocks(laboratory.blocks(guarded, trial_id, change, plan))
            trial = run_trial(
                blocks,
                proposal,
                clock=laboratory.clock,
                rng=laboratory.rng,
                trial_id=trial_id,
                on_pair=on_pair,
                reference=self._reference,
            )
            self._remember(blocks, stays=trial.verdict.outcome.stays)
            if trial.verdict.outcome.stays:
                self._rungs.enter_context(rung.pop_all())
                self.incumbent = proposal.configuration
        return trial

    def _remember(self, blocks: LastBlocks, *, stays: bool) -> None:
        """Refer the next trial to the latest block of what will be its baseline."""
        self._reference = blocks.last.get(Arm.CANDIDATE if stays else Arm.BASELINE, self._reference)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rungs.__exit__(kind, error, trace)
