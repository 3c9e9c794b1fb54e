"""What an offline search came to."""

from __future__ import annotations

from dataclasses import dataclass

from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.trials import Interval, Outcome, Trial


@dataclass(frozen=True, slots=True)
class Tuned:
    """The best configuration that was found, and what shows it.

    Parameters
    ----------
    initial, best : Configuration
        What was in force at the start, and what the search ended with; the same where nothing was preferred.
    trials : tuple of Trial
        The screenings, in the order in which they were run.
    proof : Trial or None
        `best` against `initial`, afterwards, by the always-valid test; None where there was nothing to prove or no
        time for it.
    """

    initial: Configuration
    best: Configuration
    trials: tuple[Trial, ...] = ()
    proof: Trial | None = None

    @property
    def is_proven(self) -> bool:
        """Whether the proof promoted the best configuration; then it is in force, else the initial one is."""
        return self.proof is not None and self.proof.verdict.outcome is Outcome.PROMOTED

    @property
    def proven(self) -> Interval | None:
        """Best over initial as the proof measured it; None where it did not."""
        if self.proof is None or not self.proof.verdict.pairs:
            return None
        verdict = self.proof.verdict
        return Interval(verdict.ratio, verdict.ratio_low, verdict.ratio_high)

    @property
    def in_force(self) -> Configuration:
        """What the server runs on now."""
        return self.best if self.is_proven else self.initial
