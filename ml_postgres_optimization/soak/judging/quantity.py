"""Quantities as people write them, a number and its unit, and back."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum

from ml_postgres_optimization.errors import UsageError


class Dimension(StrEnum):
    """What a quantity measures, and what it is counted in inside."""

    RATIO = "ratio"
    GROWTH = "growth over the run"
    SECONDS = "seconds"
    BYTES_PER_HOUR = "bytes per hour"
    FACTOR = "factor"


_UNITS: Mapping[Dimension, Mapping[str, float]] = {
    Dimension.RATIO: {"%": 0.01},
    Dimension.GROWTH: {"%": 0.01},
    Dimension.SECONDS: {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0},
    Dimension.BYTES_PER_HOUR: {"B/h": 1.0, "kB/h": 1e3, "MB/h": 1e6, "GB/h": 1e9},
    Dimension.FACTOR: {"x": 1.0, "×": 1.0},
}
_EXAMPLES: Mapping[Dimension, str] = {
    Dimension.RATIO: '"99.5 %"',
    Dimension.GROWTH: '"50 %"',
    Dimension.SECONDS: '"5 ms"',
    Dimension.BYTES_PER_HOUR: '"1 MB/h"',
    Dimension.FACTOR: '"14.4 x"',
}
_QUANTITY = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|[+-]?(?:nan|inf))\s*(\S*)\s*", re.IGNORECASE)


def quantity(name: str, written: object, dimension: Dimension) -> float:
    """Return what was written for `name`, in the unit inside.

    Parameters
    ----------
    name : str
        The key, for messages.
    written : object
        A string such as ``"5 ms"``; a number alone where `dimension` is a ratio or a factor.

    Raises
    ------
    UsageError
        If it is no quantity, has another unit, or is negative or not finite; a ratio also if it is above 1.

    Examples
    --------
    >>> quantity("mean", "5 ms", Dimension.SECONDS)
    0.005
    """
    number, unit = _parts(name, written, dimension)
    if unit not in {*_UNITS[dimension], *_bare(dimension)}:
        raise UsageError(
            f"Criterion {name} is {written!r}: {unit or 'no unit'} is no unit of {_noun(dimension)}.",
            f"Write it with one of {', '.join(_UNITS[dimension])}: {name} = {_EXAMPLES[dimension]}.",
        )
    value = float(number * Decimal(str(_UNITS[dimension].get(unit, 1.0))))
    most = 1.0 if dimension is Dimension.RATIO else math.inf
    if not math.isfinite(value) or not 0 <= value <= most:
        limit = "from 0 to 100 %" if dimension is Dimension.RATIO else "finite and not negative"
        raise UsageError(f"Criterion {name} is {written!r}; it must be {limit}.", "Correct it in the criteria file.")
    return value


def _parts(name: str, written: object, dimension: Dimension) -> tuple[Decimal, str]:
    if isinstance(written, int | float) and not isinstance(written, bool):
        return Decimal(str(written)), ""
    found = _QUANTITY.fullmatch(written) if isinstance(written, str) else None
    if found is None:
        raise UsageError(
            f"Criterion {name} is {written!r}, which is no quantity.", f"Write {name} = {_EXAMPLES[dimension]}."
        )
    return Decimal(found[1]), found[2]


def _bare(dimension: Dimension) -> set[str]:
    return {""} if dimension in {Dimension.RATIO, Dimension.FACTOR} else set()


def _noun(dimension: Dimension) -> str:
    return {
        Dimension.RATIO: "a share",
        Dimension.GROWTH: "growth",
        Dimension.SECONDS: "a time",
        Dimension.BYTES_PER_HOUR: "growth of memory",
        Dimension.FACTOR: "a factor",
    }[dimension]


def shown(value: float, dimension: Dimension) -> str:
    """Return a quantity for readers; a dash where there is none."""
    if not math.isfinite(value):
        return "–"
    if dimension is Dimension.RATIO:
        return f"{value * 100:.4g} %" if value < 0.99 or value == 1 else f"{value * 100:.3f} %"
    if dimension is Dimension.GROWTH:
        return f"{value * 100:+.3g} %".replace("-", "−")
    if dimension is Dimension.SECONDS:
        return shown_seconds(value)
    if dimension is Dimension.BYTES_PER_HOUR:
        return f"{shown_bytes(value)}/h"
    return f"{value:.3g} ×"


def shown_seconds(seconds: float) -> str:
    """Return a time in the unit that gives it three figures before or after the point."""
    if not math.isfinite(seconds):
        return "–"
    for limit, factor, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms"), (600.0, 1.0, "s"), (7200.0, 1 / 60, "min")):
        if seconds < limit:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds / 3600:.3g} h"


def shown_bytes(count: float) -> str:
    """Return bytes in the unit that gives them three figures."""
    sign, size = ("−" if count < 0 else ""), abs(count)
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= factor:
            return f"{sign}{size / factor:.3g} {unit}"
    return f"{sign}{size:.0f} B"
