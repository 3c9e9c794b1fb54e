"""Tell the user, the log and the repository what a controller does."""

from __future__ import annotations

import math

from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.interfaces.trial_view import trial_record
from ml_postgres_optimization.interfaces.workbench.observing import Observer
from ml_postgres_optimization.tuning.progress import Progress, Stage

_NOT_TOLD = {Stage.COMPARED, Stage.STEADY}
# A quiet run says now and then that it lives; each window is in the log.
_STEADY_EVERY_SECONDS = 600.0


class Listener:
    """Tell the user and the log what a controller does, and have the repository keep its trials."""

    def __init__(self, session: Session, observer: Observer) -> None:
        self._session = session
        self._observer = observer
        self._steady_told_seconds = -math.inf

    def __call__(self, progress: Progress) -> None:
        """Take one step of a controller."""
        self._session.log.info("optimize", stage=str(progress.stage), message=progress.message)
        if progress.stage not in _NOT_TOLD or self._is_time_for(progress.stage):
            self._session.reporter.say(f"{progress.stage}: {progress.message}")
        if progress.proposal and progress.stage is Stage.PROPOSED:
            self._observer.know(progress.proposal.configuration, progress.proposal.origin)
        if progress.configuration is not None:
            self._observer.know(progress.configuration, "somebody else")
        if (trial := progress.trial) is not None:
            self._observer.keep(lambda repository: repository.add_trial(trial_record(trial)))
            # before another trial of the same knobs begins
            self._observer.look()

    def _is_time_for(self, stage: Stage) -> bool:
        now = self._session.clock.monotonic_seconds()
        if stage is not Stage.STEADY or now - self._steady_told_seconds < _STEADY_EVERY_SECONDS:
            return False
        self._steady_told_seconds = now
        return True
