"""What recorded promotions brought together, along the line of configurations that follow from each other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from ml_postgres_optimization.interfaces.trial_view import PROOF, effect_of
from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.target.postgres.repository import TrialRecord
from ml_postgres_optimization.trials import Interval, Outcome


@dataclass(frozen=True, slots=True)
class Line:
    """Promotions of which each stands on the one before.

    Parameters
    ----------
    start : Configuration
        What was in force before the first of them.
    promoted : tuple of TrialRecord
        Oldest first; those that a proof took back have left it.
    rungs : frozenset of Configuration
        What an offline search went on with, unproven: in force in its trials, and taken back at its end.
    """

    start: Configuration
    promoted: tuple[TrialRecord, ...] = ()
    rungs: frozenset[Configuration] = frozenset()

    @property
    def end(self) -> Configuration:
        """What the last of them left in force."""
        return self.promoted[-1].candidate if self.promoted else self.start

    @property
    def brought(self) -> Interval:
        """The product of the promoted ratios: what is in force over the start; 1 where nothing was promoted.

        Its ends are the products of the ends, as in `tuning.ledger.Ledger.accumulated`.
        """
        effects = [effect_of(trial) for trial in self.promoted]
        return Interval(*(math.prod(ends) for ends in zip(*effects, strict=True))) if effects else Interval(1, 1, 1)

    def since(self, configuration: Configuration) -> Line | None:
        """Return the part of the line that begins with `configuration`; None where it is not on it."""
        stations = [self.start, *(trial.candidate for trial in self.promoted)]
        if configuration not in stations:
            return None
        return Line(configuration, self.promoted[stations.index(configuration) :])

    def back_to(self, configuration: Configuration) -> Line:
        """Return the line up to `configuration`; a new one where it is not on it."""
        after = self.since(configuration)
        kept = len(self.promoted) - len(after.promoted) if after else 0
        return Line(self.start, self.promoted[:kept]) if after else Line(configuration)

    def after(self, trial: TrialRecord) -> Line:
        """Return the line after one more trial.

        Where its baseline is not what the line left in force, something else has changed the configuration (a
        rollback, a person): from there on it is counted afresh, or on from where the line has been before.
        """
        is_promoted = trial.outcome == Outcome.PROMOTED
        stands = trial.baseline == self.end or (trial.baseline in self.rungs and not is_promoted)
        line = self if stands else self.back_to(trial.baseline)
        if trial.outcome == Outcome.PREFERRED:
            return replace(line, rungs=line.rungs | {trial.candidate})
        if not is_promoted:
            return line
        if trial.origin == PROOF:
            return line.back_to(trial.candidate)
        return Line(line.start, (*line.promoted, trial))


@dataclass(frozen=True, slots=True)
class Proof:
    """What had been found, measured afresh against what it started from; no promotion, but a check of them.

    Parameters
    ----------
    trial : TrialRecord
        Its candidate was the initial configuration.
    promised : Line or None
        The promotions that it checks; None where they are not recorded.
    """

    trial: TrialRecord
    promised: Line | None

    @property
    def proven(self) -> Interval | None:
        """What had been found over the initial configuration; None where nothing could be compared."""
        return effect_of(self.trial).inverted if self.trial.pairs else None


def lines(trials: Iterable[TrialRecord]) -> Iterator[Line]:
    """Yield the line as it stood after each trial.

    Parameters
    ----------
    trials : iterable of TrialRecord
        Oldest first.
    """
    line: Line | None = None
    for trial in trials:
        line = (line or Line(trial.baseline)).after(trial)
        yield line


def proofs(trials: Sequence[TrialRecord]) -> list[Proof]:
    """Return the proofs, oldest first, each with the promotions that it checks."""
    found = []
    line: Line | None = None
    for trial in trials:
        line = line or Line(trial.baseline)
        if trial.origin == PROOF:
            stood = line if trial.baseline == line.end else line.back_to(trial.baseline)
            found.append(Proof(trial, stood.since(trial.candidate)))
        line = line.after(trial)
    return found
