"""Candidates put over each other without being proven, and taken down again in reverse order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from ml_postgres_optimization.knobs.configuration import Change, Configuration
from ml_postgres_optimization.telemetry import Window
from ml_postgres_optimization.trials import Design, Proposal, Trial, TrialPlan
from ml_postgres_optimization.tuning.laboratory import Laboratory
from ml_postgres_optimization.tuning.offline.course import Course, Latest, OnBlock
from ml_postgres_optimization.tuning.offline.screening import Noise, Screening


class Ladder:
    """A context in which candidates are screened; what is preferred stays in force until it ends, and no longer.

    Every rung is a trial that stays open in the journal: whatever kills us, the next start takes them down, the
    newest first, until what was in force at the beginning is in force again.

    Parameters
    ----------
    laboratory : Laboratory
    initial : Configuration
        In force now.
    windows : sequence of Window
        Blocks of `initial`, measured just now.

    Attributes
    ----------
    noise : Noise
        Of blocks, learned from all so far.
    """

    def __init__(
        self, laboratory: Laboratory, initial: Configuration, windows: Sequence[Window], noise: Noise
    ) -> None:
        self._laboratory = laboratory
        self._rungs = ExitStack()
        self._latest = Latest(windows)
        self.noise = noise
        self.incumbent = initial

    @property
    def latest_window(self) -> Window:
        """The latest block of the incumbent."""
        return self._latest.reference

    def screen(
        self,
        proposal: Proposal,
        plan: TrialPlan,
        screening: Screening,
        *,
        on_block: OnBlock,
        has_time: Callable[[], bool],
    ) -> Trial:
        """Try `proposal` against the incumbent; where it is preferred, it is the incumbent from now on.

        Parameters
        ----------
        proposal : Proposal
        plan : TrialPlan
        screening : Screening
        on_block, has_time : callable
            See `Course`.

        Raises
        ------
        ChangeRefused
            If the guard or the server refuses it; nothing has changed then.
        TargetError, JournalError
            If the server or the journal fails.
        """
        laboratory, change = self._laboratory, Change(self.incumbent, proposal.configuration)
        trial_id, started_at = laboratory.new_trial_id(), laboratory.clock.now()
        with ExitStack() as rung:
            guarded = rung.enter_context(laboratory.guard.trial(change, trial_id))
            blocks = laboratory.blocks_in_turn(guarded, trial_id, change, plan)
            # after restarts, only blocks that had one too can be compared with
            latest = Latest(()) if blocks.design is Design.RESTART else self._latest
            course = Course(blocks, latest, screening, self.noise, on_block=on_block, has_time=has_time)
            verdict = course.verdict()
            blocks.leave(change.after if verdict.outcome.stays else change.before)
            self.noise = self.noise.after(course.logs(course.windows))
            if verdict.outcome.stays:
                self._rungs.enter_context(rung.pop_all())
                self._latest, self.incumbent = Latest(course.windows), proposal.configuration
            self._latest.is_stale |= blocks.design is Design.RESTART
        ended_at = laboratory.clock.now()
        return Trial(
            trial_id, change.before, proposal, verdict, started_at, ended_at, course.figures, design=blocks.design
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rungs.__exit__(kind, error, trace)
