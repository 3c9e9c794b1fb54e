"""What trials may cost together, and what they have brought."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import fmean

from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.trials import Arm, Interval, Measure, Outcome, Trial


@dataclass(frozen=True, slots=True)
class Budget:
    """When to stop.

    Parameters
    ----------
    seconds : float
        For everything, the proof included.
    patience : int
        Proposals of the search in a row that may come to nothing. On TUNA's released single-node runs, to stop after
        10 of them kept 73 to 97 % of the final gain, for less than half of the trials (our calculation).
    trials : int or None
        That may be held before the proof; None leaves their number to the time.
    least_gain : float
        Log ratio that a trial must be expected to gain: the search stops where its surrogate expects less of every
        candidate, as soon as it has learned from enough trials to expect anything.
    prove : bool
        Whether to try the initial configuration once more at the end; as soon as something was promoted, a third of
        the time is kept for it where ten pairs need that, and up to half where six do.
    """

    seconds: float
    patience: int = 10
    trials: int | None = None
    least_gain: float = 0.005
    prove: bool = True


@dataclass(frozen=True, slots=True)
class Comparison:
    """Initial configuration against the one that was found, on the same offered load, in turns.

    Parameters
    ----------
    initial_seconds, optimised_seconds : mapping of Measure to float
        Over all blocks of each.
    ratios : mapping of Measure to Interval
        Optimised over base.
    pairs : int
    is_proof : bool
        Whether it was measured afresh, after the configuration had been chosen.
    """

    initial_seconds: Mapping[Measure, float]
    optimised_seconds: Mapping[Measure, float]
    ratios: Mapping[Measure, Interval]
    pairs: int
    is_proof: bool

    @classmethod
    def of_proof(cls, trial: Trial) -> Comparison:
        """Read a trial whose candidate was the initial configuration."""
        ratios = {measure: effect.inverted for measure, effect in trial.effects.items()}
        base, optimised = _seconds_of(trial, Arm.CANDIDATE), _seconds_of(trial, Arm.BASELINE)
        return cls(base, optimised, ratios, len(trial.verdict.pairs), is_proof=True)

    @classmethod
    def of_trial(cls, trial: Trial) -> Comparison:
        """Read a trial whose baseline was the initial configuration."""
        base, optimised = _seconds_of(trial, Arm.BASELINE), _seconds_of(trial, Arm.CANDIDATE)
        return cls(base, optimised, trial.effects, len(trial.verdict.pairs), is_proof=False)


def _seconds_of(trial: Trial, arm: Arm) -> dict[Measure, float]:
    """Return an arm's figures; of sessions that are not ours only the objective, the mean, is known, pair by pair."""
    pairs = trial.verdict.pairs
    objective = [pair.baseline_seconds if arm is Arm.BASELINE else pair.candidate_seconds for pair in pairs]
    known = {f"{arm}_mean_seconds": fmean(objective)} if objective and list(trial.effects) == [Measure.MEAN] else {}
    figures = {measure: {**trial.figures, **known}.get(f"{arm}_{measure}_seconds", math.nan) for measure in Measure}
    return {measure: seconds for measure, seconds in figures.items() if math.isfinite(seconds)}


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
        return tuple(trial for trial in self.trials if trial.verdict.outcome.stays)

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
        return Interval(verdict.ratio, verdict.ratio_low, verdict.ratio_high).inverted

    @property
    def is_proven(self) -> bool:
        """Whether the proof shows that the incumbent is faster than the initial configuration."""
        return self.proof is not None and self.proof.verdict.ratio_low > 1

    @property
    def comparison(self) -> Comparison | None:
        """What the proof measured, else the only promoted trial; None where neither compares base with optimised."""
        if self.proof is not None and self.proof.verdict.pairs:
            return Comparison.of_proof(self.proof)
        return Comparison.of_trial(self.promoted[0]) if len(self.promoted) == 1 else None

    @property
    def initial_seconds(self) -> Mapping[Measure, float]:
        """Response times of the initial configuration in the first trial against it; empty where there was none."""
        first = next((trial for trial in self.trials if trial.baseline == self.initial), None)
        return {} if first is None else _seconds_of(first, Arm.BASELINE)

    def after(self, trial: Trial) -> Ledger:
        """Return the ledger with one more trial, its candidate in force where it was promoted."""
        promoted = trial.verdict.outcome.stays
        incumbent = trial.proposal.configuration if promoted else self.incumbent
        return replace(self, trials=(*self.trials, trial), incumbent=incumbent)

    def proved_by(self, trial: Trial) -> Ledger:
        """Return the ledger with the proof; the initial configuration is in force again where that was faster."""
        promoted = trial.verdict.outcome is Outcome.PROMOTED
        return replace(self, proof=trial, incumbent=self.initial if promoted else self.incumbent)


def said_of_proof(ledger: Ledger) -> str:
    """Say in a sentence what the proof has shown."""
    if ledger.proven is None:
        return "nothing was seen to run in the proof"
    ratio, low, high = ledger.proven
    kept = (
        "the initial configuration is in force again" if ledger.incumbent == ledger.initial else "it stays in force"
    )
    return f"in force over initial: {ratio:.3f} ({low:.3f} to {high:.3f}); {kept}"
