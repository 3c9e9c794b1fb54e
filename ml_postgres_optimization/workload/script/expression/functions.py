"""Operators and functions; none is called with NULL, which makes the result NULL.

References
----------
PostgreSQL's documentation, pgbench, "Built-in Operators" and "Built-In Functions".
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.workload.script.expression.value import Value, boolean, fitted, real, whole

_SHIFT_BITS = 63


def add(left: Value, right: Value) -> Value:
    """Add."""
    if type(left) is int and type(right) is int:
        return fitted(left + right)
    return real(left) + real(right)


def subtract(left: Value, right: Value) -> Value:
    """Subtract."""
    if type(left) is int and type(right) is int:
        return fitted(left - right)
    return real(left) - real(right)


def multiply(left: Value, right: Value) -> Value:
    """Multiply."""
    if type(left) is int and type(right) is int:
        return fitted(left * right)
    return real(left) * real(right)


def divide(left: Value, right: Value) -> Value:
    """Divide; integers towards zero, and doubles as IEEE 754 does, so that 1.0 / 0 is infinite."""
    if type(left) is int and type(right) is int:
        quotient = abs(left) // abs(_divisor(right))
        return fitted(quotient if (left < 0) == (right < 0) else -quotient)
    dividend, divisor = real(left), real(right)
    if divisor:
        return dividend / divisor
    if dividend == 0 or math.isnan(dividend) or math.isnan(divisor):
        return math.nan
    return math.copysign(math.inf, dividend) * math.copysign(1.0, divisor)


def modulo(left: Value, right: Value) -> Value:
    """Return the remainder, with the sign of the dividend; doubles are rounded first."""
    dividend, divisor = whole(left), _divisor(whole(right))
    remainder = abs(dividend) % abs(divisor)
    return -remainder if dividend < 0 else remainder


def negate(value: Value) -> Value:
    """Subtract from 0."""
    return subtract(0, value)


def complement(value: Value) -> Value:
    """Flip every bit."""
    return ~whole(value)


def bits_and(left: Value, right: Value) -> Value:
    """Keep the bits that both have."""
    return whole(left) & whole(right)


def bits_or(left: Value, right: Value) -> Value:
    """Keep the bits that either has."""
    return whole(left) | whole(right)


def bits_xor(left: Value, right: Value) -> Value:
    """Keep the bits that just one has."""
    return whole(left) ^ whole(right)


def shift_left(left: Value, right: Value) -> Value:
    """Shift to the left; what leaves 64 bits is lost, and of the count only the lowest 6 bits matter."""
    return signed(whole(left) << (whole(right) & _SHIFT_BITS))


def shift_right(left: Value, right: Value) -> Value:
    """Shift to the right, keeping the sign; of the count only the lowest 6 bits matter."""
    return whole(left) >> (whole(right) & _SHIFT_BITS)


def signed(bits: int) -> int:
    """Return the lowest 64 bits as a signed integer."""
    return ((bits + 2**63) & (2**64 - 1)) - 2**63


def equal(left: Value, right: Value) -> Value:
    """Compare."""
    return _compare(operator.eq, left, right)


def unequal(left: Value, right: Value) -> Value:
    """Compare."""
    return _compare(operator.ne, left, right)


def less(left: Value, right: Value) -> Value:
    """Compare."""
    return _compare(operator.lt, left, right)


def less_or_equal(left: Value, right: Value) -> Value:
    """Compare."""
    return _compare(operator.le, left, right)


def greater(left: Value, right: Value) -> Value:
    """Compare."""
    return _compare(operator.gt, left, right)


def greater_or_equal(left: Value, right: Value) -> Value:
    """Compare."""
    return _compare(operator.ge, left, right)


def negation(value: Value) -> Value:
    """Return the opposite of a boolean."""
    return not boolean(value)


def absolute(value: Value) -> Value:
    """Return the value without its sign."""
    return fitted(abs(value)) if type(value) is int else abs(real(value))


def least(*values: Value) -> Value:
    """Return the smallest; a double if any is one."""
    return min(_alike(values))


def greatest(*values: Value) -> Value:
    """Return the largest; a double if any is one."""
    return max(_alike(values))


def pi() -> Value:
    """Return pi."""
    return math.pi


def square_root(value: Value) -> Value:
    """Return the square root; of a negative number, no number."""
    number = real(value)
    return math.nan if number < 0 else math.sqrt(number)


def natural_logarithm(value: Value) -> Value:
    """Return the natural logarithm; of 0 it is infinite, of a negative number no number."""
    number = real(value)
    if number > 0:
        return math.log(number)
    return -math.inf if number == 0 else math.nan


def exponential(value: Value) -> Value:
    """Return e to the power of a value; infinite where that is beyond a double."""
    try:
        return math.exp(real(value))
    except OverflowError:
        return math.inf


def power(left: Value, right: Value) -> Value:
    """Return a double; infinite beyond its range or where 0 is divided by, no number where it is complex."""
    number, exponent = real(left), real(right)
    is_odd = math.isfinite(exponent) and abs(math.fmod(exponent, 2)) == 1
    infinity = math.copysign(math.inf, number) if is_odd else math.inf
    try:
        return math.pow(number, exponent)
    except OverflowError:
        return infinity
    except ValueError:
        return infinity if number == 0 else math.nan


def _compare(comparison: Callable[[float, float], bool], left: Value, right: Value) -> bool:
    if type(left) is int and type(right) is int:
        return comparison(left, right)
    return comparison(real(left), real(right))


def _divisor(value: int) -> int:
    if value:
        return value
    raise UsageError("division by zero", "Guard it, as in CASE WHEN :x <> 0 THEN :y / :x END.")


def _alike(values: tuple[Value, ...]) -> list[int] | list[float]:
    if any(type(value) is float for value in values):
        return [real(value) for value in values]
    return [whole(value) for value in values]
