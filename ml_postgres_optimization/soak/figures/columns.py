"""Figures over time, kept by column: days of them take some megabytes."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray


class Columns:
    """A table of floats with a row for each slot of time; what was not measured is NaN, never zero.

    Parameters
    ----------
    slot_seconds : float
        Length of a slot; slot k begins k times as long after the run.
    """

    def __init__(self, slot_seconds: float) -> None:
        self.slot_seconds = slot_seconds
        self._columns: dict[str, array[float]] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._columns))

    def __contains__(self, name: object) -> bool:
        return name in self._columns

    def put(self, slot: int, figures: Mapping[str, float]) -> None:
        """Write the row of `slot`, which is not before any that was written."""
        self.extend(slot + 1)
        for name, value in figures.items():
            if name not in self._columns:
                self._columns[name] = array("d", [math.nan]) * self._length
            self._columns[name][slot] = value

    def extend(self, length: int) -> None:
        """Add empty rows until there are `length`: time in which nothing was measured."""
        missing = length - self._length
        if missing > 0:
            for column in self._columns.values():
                column.extend([math.nan] * missing)
            self._length = length

    def column(self, name: str) -> NDArray[np.float64]:
        """Return a copy of a column, shape (slots,); all NaN where nothing of that name was measured."""
        column = self._columns.get(name)
        return np.full(self._length, np.nan) if column is None else np.array(column, dtype=np.float64)

    def names_of(self, family: str) -> list[str]:
        """Return the columns whose names begin with `family` and a dot, in alphabetical order."""
        return [name for name in self if name.startswith(f"{family}.")]

    def hours(self) -> NDArray[np.float64]:
        """Return where the slots begin, in hours since the run's start, shape (slots,)."""
        return np.arange(self._length, dtype=np.float64) * self.slot_seconds / 3600
