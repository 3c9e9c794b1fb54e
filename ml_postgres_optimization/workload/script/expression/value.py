"""The values of a script's variables: NULL, booleans, 64-bit integers and doubles."""

from __future__ import annotations

import math
import re

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.workload.script.source import printable

Value = int | float | bool | None
Stored = Value | str  # what \gset stores is text, until an expression reads it

INTEGER_MINIMUM = -(2**63)
INTEGER_MAXIMUM = 2**63 - 1
_BEYOND_INTEGERS = 2.0**63
_INTEGER = re.compile(r"\s*[-+]?[0-9]+", re.ASCII)
_DOUBLE = re.compile(
    r"\s*[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|\s*[-+]?(?:inf|infinity|nan)", re.ASCII | re.I
)
_YES = frozenset({"t", "tr", "tru", "true", "y", "ye", "yes", "on"})
_NO = frozenset({"f", "fa", "fal", "fals", "false", "n", "no", "of", "off"})


def fitted(number: int) -> int:
    """Return an integer that fits in 64 bits, and refuse any other."""
    if INTEGER_MINIMUM <= number <= INTEGER_MAXIMUM:
        return number
    raise UsageError("an integer overflows 64 bits", "Keep it within ±9223372036854775807, or compute with doubles.")


def whole(value: Value) -> int:
    """Return a number as an integer; a double is rounded, halves to the even neighbour."""
    if type(value) is int:
        return value
    if type(value) is float:
        if -_BEYOND_INTEGERS <= value < _BEYOND_INTEGERS:
            return round(value)
        raise UsageError(f"{shown(value)} is no 64-bit integer", "Keep doubles within the range of integers here.")
    raise _no_number(value)


def real(value: Value) -> float:
    """Return a number as a double."""
    if type(value) is float or type(value) is int:
        return float(value)
    raise _no_number(value)


def boolean(value: Value) -> bool:
    """Return a boolean; a number is none here."""
    if type(value) is bool:
        return value
    raise UsageError(
        f"{shown(value)} is no boolean", "AND, OR and NOT take booleans; compare a number, as in :x <> 0."
    )


def truth(value: Value) -> bool:
    r"""Return what \if and CASE WHEN make of a value: all numbers but 0 are true, NULL is false."""
    return bool(value)


def shown(value: Stored) -> str:
    """Return a value as it stands in SQL: doubles with 15 digits, and text as it is."""
    if type(value) is float:
        return f"{value:.15g}" if math.isfinite(value) else _unbounded(value)
    if value is None:
        return "NULL"
    if type(value) is bool:
        return "true" if value else "false"
    return str(value)


def written(value: Stored) -> int | str:
    """Return a value as `shown` does, but an integer as it is, since formatting it costs less than a call."""
    return value if type(value) is int else shown(value)


def read(text: str) -> Value:
    r"""Return the value that an expression reads out of a text, as \gset stores it."""
    word = text.lower()
    if word == "null":
        return None
    if word in _YES or word in _NO:
        return word in _YES
    if _INTEGER.fullmatch(text):
        return _integer(text)
    if _DOUBLE.fullmatch(text):
        return _finite_where_written_so(text)
    raise UsageError(
        f"the text '{printable(text)}' is no value that can be computed with",
        "Expressions take numbers, booleans and null; text can only be put into SQL.",
    )


def _unbounded(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _integer(text: str) -> int:
    # Python refuses to read, and would be slow at, thousands of digits
    if len(text.strip().lstrip("+-0")) > len(str(INTEGER_MAXIMUM)):
        return fitted(INTEGER_MAXIMUM + 1)
    return fitted(int(text))


def _finite_where_written_so(text: str) -> float:
    number = float(text)
    if math.isinf(number) and any(letter.isdigit() for letter in text):
        raise UsageError(f"{printable(text)} is beyond the range of a double", "Keep it below 1.7e308.")
    return number


def _no_number(value: Value) -> UsageError:
    return UsageError(f"{shown(value)} is no number", "Arithmetic and comparisons take integers and doubles.")
