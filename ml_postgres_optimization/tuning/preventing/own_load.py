"""What forests say to load of our own: where its limiter begins, and below what it is held."""

from __future__ import annotations

import math

from ml_postgres_optimization.knobs.configuration import CONCURRENCY, Configuration
from ml_postgres_optimization.models.features import LoadContext
from ml_postgres_optimization.models.knob_forest import KnobForest
from ml_postgres_optimization.retry.classification import ErrorClass
from ml_postgres_optimization.tuning.preventing.danger import Alarm, Costs, Patience
from ml_postgres_optimization.tuning.preventing.foresight import LIMITED_CLASSES, Foresight

USUAL = 8
"""What a limiter begins with where nobody foretells anything."""
# Numbers whose forecasts differ by less are as good as each other.
_AS_GOOD_RATIO = 1.02
_STEP_RATIO = 1.25


def beginning(model: KnobForest, configuration: Configuration, context: LoadContext, *, most: int) -> int | None:
    """Return how many operations at once are expected to have the least mean response.

    Parameters
    ----------
    model : KnobForest
    configuration : Configuration
        That will be in force; how many run at once is what is asked for.
    context : LoadContext
        The load that will be offered.
    most : int
        That there are connections for.

    Returns
    -------
    int or None
        Of the numbers that are as good as the best within 2 %, the one nearest to `USUAL`: a forest is a staircase,
        and where on a step one stands is nothing that it has learnt. None where the model is no better than the
        naive forecast, or tells no number from another.
    """
    if not model.score.beats_naive:
        return None
    numbers = _numbers(most)
    means, _ = model.predict_many([configuration.replaced({CONCURRENCY: one}) for one in numbers], context)
    least = min(means)
    good = [one for one, mean in zip(numbers, means, strict=True) if mean <= least + math.log(_AS_GOOD_RATIO)]
    if len(good) == len(numbers):
        return None
    return min(good, key=lambda one: abs(math.log(one / USUAL)))


def _numbers(most: int) -> list[int]:
    """Return 1 to `most`, a quarter apart, and `USUAL`."""
    numbers, one = {most, min(USUAL, most)}, 1.0
    while one < most:
        numbers.add(round(one))
        one = max(one + 1.0, one * _STEP_RATIO)
    return sorted(numbers)


class Hold:
    """The client's lever alone, for load on a server whose settings nobody may change meanwhile.

    Decides only; whoever has the load holds it below what `see` returns. A danger must rise, last and pass as for a
    `Preventer`, of whose levers this is one; nothing is held out, since that is left to whoever compares.

    Parameters
    ----------
    costs : Costs, optional
    patience : Patience, optional
    """

    def __init__(self, costs: Costs | None = None, patience: Patience | None = None) -> None:
        self._threshold = (costs or Costs()).threshold
        self._patience = patience or Patience()
        self._alarm = Alarm(self._threshold, self._patience)
        self._against: ErrorClass | None = None
        self._windows = 0
        self.ceiling: int | None = None

    def see(self, foresight: Foresight, *, now: int) -> int | None:
        """Take what is foretold after a window, and return below what to stay until the next; None for nothing.

        Parameters
        ----------
        foresight : Foresight
        now : int
            How many may run at once while nothing is foretold.
        """
        dangers = [one for one in foresight.dangers() if one.error_class in LIMITED_CLASSES]
        risen = self._alarm.see(dangers)
        if self._against is not None:
            self._windows += 1
            is_past = self._windows >= self._patience.horizon and self._alarm.is_past(self._against)
            if is_past or self._windows >= self._patience.longest:
                self._against = self.ceiling = None
                self._alarm.forget()
        elif risen and now > 1:
            self._against, self._windows = risen[0].error_class, 0
            self.ceiling = foresight.fewer(self._threshold, now=now)
        return self.ceiling
