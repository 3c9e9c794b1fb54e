"""Values as people and ``postgresql.conf`` write them, and back: ``64MB`` for 65536 of ``kB``."""

from __future__ import annotations

import re
from fractions import Fraction

from ml_postgres_optimization.knobs.knob import KnobValue

_KIB = 1024
_BYTES = {"B": 1, "kB": _KIB, "MB": _KIB**2, "GB": _KIB**3, "TB": _KIB**4}
_MICROSECONDS = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "min": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
}
_DIMENSIONS = (_BYTES, _MICROSECONDS)
_BASE_UNIT = re.compile(r"(?P<count>\d*)(?P<unit>[A-Za-z]+)")
_NUMBER = re.compile(r"\s*(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(?P<unit>[A-Za-z]*)\s*")
_TRUE = {"on", "true", "yes", "1"}
_FALSE = {"off", "false", "no", "0"}
_SIGNIFICANT_DIGITS = 6


def _scale(unit: str) -> tuple[int, dict[str, int]]:
    """Return how many of the smallest unit one of `unit` is (``8kB``: 8192), and its dimension's units."""
    match = _BASE_UNIT.fullmatch(unit)
    for units in _DIMENSIONS:
        if match and match["unit"] in units:
            return int(match["count"] or 1) * units[match["unit"]], units
    raise ValueError(f"{unit!r} is no unit of PostgreSQL's")


def bytes_of(value: float, unit: str) -> int:
    """Return how many bytes `value` of a unit of memory is.

    Examples
    --------
    >>> bytes_of(4, "8kB")
    32768

    Raises
    ------
    ValueError
        If `unit` is not one of memory.
    """
    scale, units = _scale(unit)
    if units is not _BYTES:
        raise ValueError(f"{unit!r} is no unit of memory")
    return int(value * scale)


def render(value: KnobValue, unit: str | None = None) -> str:
    """Write `value` of the base `unit` as people do, in the largest unit that keeps it whole.

    Examples
    --------
    >>> render(65536, "kB"), render(300, "s"), render(True), render(0.9), render(-1, "kB")
    ('64MB', '5min', 'on', '0.9', '-1')
    """
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, str):
        return value
    if unit is None or value <= 0:
        return _plain(value)
    scale, units = _scale(unit)
    smallest = Fraction(value) * scale
    fitting = [(name, factor) for name, factor in units.items() if smallest % factor == 0]
    if not fitting:
        return f"{_plain(value)}{unit}" if unit in units else _plain(value)
    name, factor = fitting[-1]
    return f"{int(smallest / factor)}{name}"


def written_text(value: KnobValue) -> str:
    """Return `value` as ``postgresql.auto.conf`` and ``pg_settings`` write it.

    Examples
    --------
    >>> written_text(True), written_text(8192.0), written_text(0.9)
    ('on', '8192', '0.9')
    """
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    return str(value)


def _plain(value: float) -> str:
    whole = float(value).is_integer() and abs(value) < 1e15
    return str(int(value)) if whole else f"{value:.{_SIGNIFICANT_DIGITS}g}"


def parse(text: str, kind: str, unit: str | None = None) -> KnobValue:
    """Read what ``postgresql.conf`` would accept for a setting of this kind, in the base `unit`.

    Parameters
    ----------
    text : str
        ``64MB``, ``1.5GB``, ``-1``, ``on``, ``pglz``.
    kind : str
        ``integer``, ``real``, ``bool``, ``enum`` or ``string``, as in ``pg_settings.vartype``.
    unit : str or None

    Raises
    ------
    ValueError
        If PostgreSQL would refuse it.

    Examples
    --------
    >>> parse("64MB", "integer", "kB"), parse("5min", "integer", "s"), parse("off", "bool")
    (65536, 300, False)

    References
    ----------
    PostgreSQL manual, "Parameter Names and Values" (config-setting).
    """
    if kind == "bool":
        return _truth(text)
    if kind in {"enum", "string"}:
        return text.strip().lower() if kind == "enum" else text
    number = _number(text, unit)
    return round(number) if kind == "integer" else float(number)


def _truth(text: str) -> bool:
    """Read a boolean; unambiguous beginnings are words too (``t``, ``of``)."""
    word = text.strip().lower()
    yes = any(full.startswith(word) for full in _TRUE)
    no = any(full.startswith(word) for full in _FALSE)
    if yes == no:
        raise ValueError(f"{text!r} is neither on nor off")
    return yes


def _number(text: str, unit: str | None) -> Fraction:
    match = _NUMBER.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is not a number")
    number = Fraction(match["number"])
    if not match["unit"]:
        return number
    scale, units = _scale(unit) if unit else (1, {})
    if match["unit"] not in units:
        raise ValueError(f"{text!r} has no unit that goes with {unit or 'a setting without one'}")
    return number * units[match["unit"]] / scale


def rounded(value: KnobValue, kind: str) -> KnobValue:
    """Return `value` as the server will show it: whole for an integer, six significant digits for a real.

    Examples
    --------
    >>> rounded(65536.0, "integer"), rounded(2.3456789, "real"), rounded("PGLZ", "enum")
    (65536, 2.34568, 'pglz')
    """
    if isinstance(value, str):
        return value.lower() if kind == "enum" else value
    if kind == "integer" and not isinstance(value, bool):
        return round(value)
    if kind == "real" and not isinstance(value, bool):
        return float(f"{value:.{_SIGNIFICANT_DIGITS}g}")
    return value


def same_value(first: KnobValue | None, second: KnobValue | None, kind: str) -> bool:
    """Tell whether two values of a setting are one to the server.

    Examples
    --------
    >>> same_value(2.3456789, 2.34568, "real"), same_value(True, 1, "bool"), same_value(4, None, "integer")
    (True, False, False)
    """
    if first is None or second is None:
        return first is second
    if isinstance(first, bool) != isinstance(second, bool):
        return False
    return rounded(first, kind) == rounded(second, kind)
