"""What all trials together have brought."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.trials import Interval, Outcome, Trial


@dataclass(frozen=True, slots=True)
class Ledger:
    """The way from the initial configuration to the one that is in force.

    Parameters
    ----------
    initial, incumbent : Configuration
        What was in force at the start, and what is now.
    trials : tuple of Trial
        In the order in which they were run.
    proof : Trial or None
        The initial configuration tried once more, against the incumbent, after all trials.
    """

    initial: Configuration
    incumbent: Configuration
    trials: tuple[Trial, ...] = ()
    proof: Trial | None = None

    @property
    def promoted(self) -> tuple[Trial, ...]:
        """The trials whose candidate stayed."""
        return tuple(trial for trial in self.trials if trial.verdict.outcome is Outcome.PROMOTED)

    @property
    def accumulated(self) -> Interval:
        """The product of the promoted ratios: incumbent over initial, 1 where nothing was promoted.

        Notes
        -----
        Its ends are the products of the ends, hence wide: with k trials of level 1 − α they hold with a probability
        of at least 1 − kα. What was promoted was promoted for its figures, which flatters them; `proven` is free of
        that.
        """
        verdicts = [trial.verdict for trial in self.promoted]
        return Interval(
            math.prod(verdict.ratio for verdict in verdicts),
            math.prod(verdict.ratio_low for verdict in verdicts),
            math.prod(verdict.ratio_high for verdict in verdicts),
        )

    @property
    def proven(self) -> Interval | None:
        """Incumbent over initial, measured afresh and interleaved; None where there was no proof."""
        if self.proof is None or not self.proof.verdict.pairs:
            return None
        verdict = self.proof.verdict
        return Interval(
            1 / verdict.ratio, 1 / verdict.ratio_high, 1 / verdict.ratio_low if verdict.ratio_low else math.inf
        )

    def after(self, trial: Trial) -> Ledger:
        """Return the ledger with one more trial, its candidate in force where it was promoted."""
        promoted = trial.verdict.outcome is Outcome.PROMOTED
        incumbent = trial.proposal.configuration if promoted else self.incumbent
        return replace(self, trials=(*self.trials, trial), incumbent=incumbent)

    def proved_by(self, trial: Trial) -> Ledger:
        """Return the ledger with the proof; the initial configuration is in force again where that was faster."""
        promoted = trial.verdict.outcome is Outcome.PROMOTED
        return replace(self, proof=trial, incumbent=self.initial if promoted else self.incumbent)
