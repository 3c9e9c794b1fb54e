"""What a forecast lets a limit begin with, and stay below: a value, so that this room needs no models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from ml_postgres_optimization.errors import UsageError

_THRESHOLD = 0.5


@dataclass(frozen=True, slots=True)
class Prior:
    """Where a limit begins, before it has learnt anything, and where it ends while danger is foretold.

    Parameters
    ----------
    begin : int
    ceiling : int or None
        Never more than so many, until it is lifted; None for no ceiling.

    Raises
    ------
    UsageError
        Unless 1 <= begin <= ceiling.
    """

    begin: int = 8
    ceiling: int | None = None

    def __post_init__(self) -> None:
        if self.begin < 1 or (self.ceiling is not None and self.ceiling < self.begin):
            raise UsageError(
                f"A prior that begins at {self.begin!r} under a ceiling of {self.ceiling!r} is none.",
                "Give 1 <= begin <= ceiling, or no ceiling.",
            )

    @classmethod
    def foretold(cls, probability: float | None, usual: int, *, threshold: float = _THRESHOLD) -> Self:
        """Return what follows from the probability of errors that fewer at once prevent.

        Parameters
        ----------
        probability : float or None
            Of the next window, 0 to 1; None where nobody knows, which is no danger.
        usual : int
            How many run at once on a good day.
        threshold : float
            From which on half of the usual is all that is let in.

        Raises
        ------
        UsageError

        Examples
        --------
        >>> Prior.foretold(0.1, 12), Prior.foretold(0.8, 12)
        (Prior(begin=12, ceiling=None), Prior(begin=6, ceiling=6))
        """
        if probability is not None and not 0.0 <= probability <= 1.0:
            raise UsageError(f"{probability!r} is no probability.", "Give 0 to 1, or None.")
        if probability is None or probability < threshold:
            return cls(usual)
        half = max(1, usual // 2)
        return cls(half, half)
