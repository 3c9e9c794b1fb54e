"""What a continuous run has brought so far, read from what its controllers tell."""

from __future__ import annotations

from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.tuning.ledger import Ledger
from ml_postgres_optimization.tuning.progress import Progress, Stage


class Chronicle:
    """A ledger for each campaign, and for each trial outside of them: up to date whenever the run is stopped.

    Parameters
    ----------
    initial : Configuration
        In force at the start.
    """

    def __init__(self, initial: Configuration) -> None:
        self.initial = initial
        self._ledgers: list[Ledger] = []

    @property
    def incumbent(self) -> Configuration:
        """What is in force."""
        return self._ledgers[-1].incumbent if self._ledgers else self.initial

    @property
    def ledgers(self) -> tuple[Ledger, ...]:
        """Those in which something was tried, in the order of time."""
        return tuple(ledger for ledger in self._ledgers if ledger.trials)

    @property
    def whole(self) -> Ledger:
        """All trials in one; it has a proof only where a single campaign was all there was."""
        ledgers = self.ledgers
        if len(ledgers) == 1 and ledgers[0].incumbent == self.incumbent:
            return ledgers[0]
        trials = tuple(trial for ledger in ledgers for trial in ledger.trials)
        return Ledger(self.initial, self.incumbent, trials)

    def begin(self) -> None:
        """Open the ledger of what comes now."""
        self._ledgers.append(Ledger(self.incumbent, self.incumbent))

    def go_on_from(self, configuration: Configuration) -> None:
        """Know that somebody else has put `configuration` in force."""
        self._ledgers.append(Ledger(configuration, configuration))

    def __call__(self, progress: Progress) -> None:
        """Take what a controller tells."""
        if progress.trial is None:
            return
        is_proof = progress.stage is Stage.PROVEN
        last = self._ledgers[-1]
        self._ledgers[-1] = last.proved_by(progress.trial) if is_proof else last.after(progress.trial)
