"""What prevention really saved: occasions that were acted on against those that were held out at random."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from ml_postgres_optimization.tuning.preventing.occasion import Choice

_Z = 1.959964  # normal quantile of a two-sided 95 % interval
HARMED = "harmed"
"""The verdict on a class of which acting brought more errors than holding out."""
SHORT_RATIO = 0.1
"""Share of the work of an occasion that may be left undone before it counts like one with an error."""
FEWEST = 5
"""Occasions of either kind without which nothing is decided."""


class Result(Protocol):
    """What counts of an occasion that was seen to its end."""

    @property
    def error_class(self) -> str:
        """Whose errors were foretold."""

    @property
    def choice(self) -> str:
        """What became of it, as in `Choice`."""

    @property
    def errors(self) -> int:
        """Of its class in the horizon."""

    @property
    def operations(self) -> int:
        """That ended in the horizon."""

    @property
    def response_seconds(self) -> float:
        """Sum of the response times of these operations."""

    @property
    def due(self) -> float:
        """Operations that were to be done in the horizon; 0 where nobody knows."""

    @property
    def undone(self) -> float:
        """Of these, those that were not."""

    @property
    def is_whole(self) -> bool:
        """Whether the horizon was seen to its end."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Occasions of one class and one kind, together.

    Parameters
    ----------
    occasions, with_errors : int
        All, and those in whose horizon an error of the class came.
    errors, operations : int
    response_seconds : float
        Sum of the response times.
    spoilt : int
        Occasions in which an error of the class came, or more than `SHORT_RATIO` of the work was left undone.
    due, undone : float
        Operations that were to be done, and those of them that were not.
    """

    occasions: int = 0
    with_errors: int = 0
    errors: int = 0
    operations: int = 0
    response_seconds: float = 0.0
    spoilt: int = 0
    due: float = 0.0
    undone: float = 0.0

    @property
    def share(self) -> float:
        """Share of the occasions that were spoilt; NaN of none."""
        return self.spoilt / self.occasions if self.occasions else math.nan

    @property
    def error_share(self) -> float:
        """Share of the occasions in which an error came; NaN of none."""
        return self.with_errors / self.occasions if self.occasions else math.nan

    @property
    def undone_share(self) -> float:
        """Share of the work that was left undone; NaN where nobody knows how much there was."""
        return self.undone / self.due if self.due else math.nan

    @property
    def errors_per_1000(self) -> float:
        """Errors for each 1,000 operations; NaN where none was timed by us."""
        return 1000.0 * self.errors / self.operations if self.operations else math.nan

    @property
    def mean_seconds(self) -> float:
        """Mean response: what prevention cost those who waited; NaN where none was timed by us."""
        return self.response_seconds / self.operations if self.operations else math.nan

    def after(self, result: Result) -> Tally:
        """Return it with one more occasion."""
        return Tally(
            self.occasions + 1,
            self.with_errors + (result.errors > 0),
            self.errors + result.errors,
            self.operations + result.operations,
            self.response_seconds + result.response_seconds,
            self.spoilt + (result.errors > 0 or result.undone > SHORT_RATIO * result.due),
            self.due + result.due,
            self.undone + result.undone,
        )


class Difference(NamedTuple):
    """A difference of two shares, and its interval of 95 %."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Saving:
    """What prevention did to the errors of one class.

    Parameters
    ----------
    error_class : str
    acted, held_out : Tally
    """

    error_class: str
    acted: Tally
    held_out: Tally

    @property
    def difference(self) -> Difference:
        """Share of occasions that were spoilt, acted on less held out: below 0 is saved.

        A lever that keeps errors away by letting less work through has saved nothing.

        References
        ----------
        R. Newcombe, Interval estimation for the difference between independent proportions, Statistics in Medicine 17
        (1998), method 10: from Wilson's interval of each. The unit is the occasion, whose windows are alike.
        """
        return _newcombe(self.acted, self.held_out)

    @property
    def is_decidable(self) -> bool:
        """Whether there are enough occasions of either kind."""
        return min(self.acted.occasions, self.held_out.occasions) >= FEWEST

    @property
    def verdict(self) -> str:
        """What is shown, in a few words."""
        if not self.is_decidable:
            return "not decidable yet"
        if self.difference.high < 0:
            return "saved"
        return HARMED if self.difference.low > 0 else "no difference shown"


def savings(results: Iterable[Result]) -> list[Saving]:
    """Return what prevention did to each class of errors of which there was an occasion, by name.

    Parameters
    ----------
    results : iterable of Result
        In any order. Advice, and what was not seen to its end, tells nothing and is left out.
    """
    tallies: dict[str, dict[str, Tally]] = {}
    for result in results:
        if result.choice == Choice.ADVISED or not result.is_whole:
            continue
        of_class = tallies.setdefault(result.error_class, {})
        of_class[result.choice] = of_class.get(result.choice, Tally()).after(result)
    return [_saving(error_class, tallies[error_class]) for error_class in sorted(tallies)]


def _saving(error_class: str, tallies: Mapping[str, Tally]) -> Saving:
    return Saving(error_class, tallies.get(Choice.ACTED, Tally()), tallies.get(Choice.HELD_OUT, Tally()))


def _newcombe(first: Tally, second: Tally) -> Difference:
    if not first.occasions or not second.occasions:
        return Difference(math.nan, -1.0, 1.0)
    (first_low, first_high), (second_low, second_high) = _wilson(first), _wilson(second)
    value = first.share - second.share
    below = math.hypot(first.share - first_low, second_high - second.share)
    above = math.hypot(first_high - first.share, second.share - second_low)
    return Difference(value, value - below, value + above)


def _wilson(tally: Tally) -> tuple[float, float]:
    """Return Wilson's interval of a share; E. Wilson, JASA 22 (1927)."""
    share, count = tally.share, tally.occasions
    shrink = 1.0 + _Z**2 / count
    center = (share + _Z**2 / (2.0 * count)) / shrink
    half = _Z / shrink * math.sqrt(share * (1.0 - share) / count + _Z**2 / (4.0 * count**2))
    return max(0.0, center - half), min(1.0, center + half)
