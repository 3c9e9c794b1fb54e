"""What the error forest says after a window, as far as it may be acted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ml_postgres_optimization.knobs.configuration import CONCURRENCY, Configuration
from ml_postgres_optimization.models.error_forest import ErrorForest
from ml_postgres_optimization.models.observation import Observation
from ml_postgres_optimization.retry import Prior
from ml_postgres_optimization.retry.classification import ErrorClass
from ml_postgres_optimization.tuning.preventing.danger import Danger

# What a limit on how many run at once prevents; other classes have other levers.
LIMITED_CLASSES = (ErrorClass.SERIALIZATION, ErrorClass.DEADLOCK, ErrorClass.TIMEOUT, ErrorClass.RESOURCES)


@dataclass(frozen=True, slots=True)
class Foresight:
    """The forest, and the window that it looks ahead from.

    Parameters
    ----------
    model : ErrorForest
    model_id : str
    observation : Observation
    """

    model: ErrorForest
    model_id: str
    observation: Observation

    @property
    def trusted(self) -> frozenset[ErrorClass]:
        """The classes that were learned, and are foretold better than by the naive forecast."""
        return trusted_by(self.model)

    def dangers(self) -> Sequence[Danger]:
        """Return the probability of errors of each trusted class in the next window."""
        trusted = self.trusted
        if not trusted:
            return ()
        predicted = self.model.predict(self.observation)
        return [Danger(name, predicted[name], self.model_id) for name in ErrorClass if name in trusted]

    def probability(self, error_class: ErrorClass, configuration: Configuration) -> float | None:
        """Return what it would be under another configuration; None for a class that is not trusted."""
        if error_class not in self.trusted:
            return None
        observed = replace(self.observation, configuration=configuration)
        return self.model.predict(observed)[error_class].value

    def prior(self, threshold: float, *, most: int) -> Prior:
        """Return where a limit of concurrency may begin, and below what it has to stay while danger is foretold.

        Parameters
        ----------
        threshold : float
            Probability from which on something is a danger.
        most : int
            Operations at once that nobody goes beyond.

        Notes
        -----
        The forest tells numbers apart only as far as it has seen windows under several. Where it expects danger
        under every number, a quarter of what runs now is where it begins.
        """
        now = min(most, int(self.observation.configuration.get(CONCURRENCY, most)))
        if not self._is_dangerous(now, threshold):
            return Prior(begin=now)
        for limit in _fewer(now):
            if not self._is_dangerous(limit, threshold):
                return Prior(begin=limit, ceiling=limit)
        least = _fewer(now)[-1]
        return Prior(begin=least, ceiling=least)

    def fewer(self, threshold: float, *, now: int) -> int:
        """Return below how many to stay while danger is foretold for `now`: half where no number is without it.

        Never less than half: a forest that has seen few numbers of them tells them apart by chance.
        """
        half, ceiling = max(1, now // 2), self.prior(threshold, most=now).ceiling
        return half if ceiling is None else max(half, ceiling)

    def _is_dangerous(self, limit: int, threshold: float) -> bool:
        configuration = self.observation.configuration.replaced({CONCURRENCY: limit})
        told = (self.probability(name, configuration) for name in LIMITED_CLASSES)
        return any(probability is not None and probability >= threshold for probability in told)


def trusted_by(model: ErrorForest) -> frozenset[ErrorClass]:
    """Return the classes that a forest has learned, and foretells better than the naive forecast does."""
    return frozenset(name for name, score in model.score.items() if score.beats_naive) & model.learned


def _fewer(now: int) -> list[int]:
    """Return three quarters, half and a quarter; 1 at least."""
    return [max(1, round(now * share)) for share in (0.75, 0.5, 0.25)]
