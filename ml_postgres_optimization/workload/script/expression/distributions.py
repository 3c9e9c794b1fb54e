"""Random draws, hashes and the pseudorandom permutation.

References
----------
PostgreSQL's documentation, pgbench, "Built-In Functions": ranges, parameters and shapes.
W. Hörmann and G. Derflinger, "Rejection-inversion to generate variates from monotone discrete distributions",
ACM TOMACS 6(3), 1996: the Zipfian draw, whose cost does not grow as the parameter approaches 1.
G. Fowler, L. C. Noll, K.-P. Vo, FNV-1a; A. Appleby, MurmurHash2 (64 bits).
D. Blackman and S. Vigna, "Scrambled linear pseudorandom number generators", ACM TOMS 47(4), 2021: xoroshiro128**.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from random import Random

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.workload.script.expression.functions import signed
from ml_postgres_optimization.workload.script.expression.value import INTEGER_MAXIMUM, Value, real, whole

_WORD = 2**64 - 1
_FNV_BASIS, _FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3
_MURMUR_FACTOR, _MURMUR_SHIFT = 0xC6A4A7935BD1E995, 47
_MURMUR_LENGTH = 8
_GOLDEN_RATIO = 0x9E3779B97F4A7C15
_PERMUTE_ROUNDS = 6
LEAST_GAUSSIAN = 2.0
LEAST_ZIPFIAN, MOST_ZIPFIAN = 1.001, 1000.0


def uniform(rng: Random, low: Value, high: Value) -> Value:
    """Draw an integer from `low` to `high`, each as likely."""
    first, size = _range(low, high)
    bits = size.bit_length()
    # what randrange does, at half its cost
    while (drawn := rng.getrandbits(bits)) >= size:
        continue
    return first + drawn


def gaussian(rng: Random, low: Value, high: Value, parameter: Value) -> Value:
    """Draw from a normal distribution around the middle, cut off at `parameter` standard deviations: the ends."""
    first, size = _range(low, high)
    deviations = real(parameter)
    if not LEAST_GAUSSIAN <= deviations < math.inf:
        raise _bad_parameter("random_gaussian", deviations, "at least 2")
    deviation = rng.gauss(0.0, 1.0)
    while not -deviations <= deviation < deviations:
        deviation = rng.gauss(0.0, 1.0)
    return _placed(first, size, 0.5 + deviation / deviations / 2)


def exponential(rng: Random, low: Value, high: Value, parameter: Value) -> Value:
    """Draw from an exponential distribution that is cut off where its density has fallen to exp(-`parameter`)."""
    first, size = _range(low, high)
    decay = real(parameter)
    if not 0 < decay < math.inf:
        raise _bad_parameter("random_exponential", decay, "above 0")
    return _placed(first, size, -math.log1p(math.expm1(-decay) * rng.random()) / decay)


def zipfian(rng: Random, low: Value, high: Value, parameter: Value) -> Value:
    """Draw the k-th integer from `low` on with a probability in proportion to 1 / k ** `parameter`."""
    first, size = _range(low, high)
    exponent = real(parameter)
    if not LEAST_ZIPFIAN <= exponent <= MOST_ZIPFIAN:
        raise _bad_parameter("random_zipfian", exponent, "from 1.001 to 1000")
    begin, end = _hat_bounds(size, exponent)
    while True:
        area = end + rng.random() * (begin - end)
        rank = min(max(round(_hat_position(area, exponent)), 1), size)
        if area >= _hat_area(rank + 0.5, exponent) - rank**-exponent:
            return first + rank - 1


def hash_fnv1a(value: Value, seed: Value) -> Value:
    """Hash an integer by FNV-1a, 64 bits."""
    state = (_FNV_BASIS ^ whole(seed)) & _WORD
    for octet in whole(value).to_bytes(8, "little", signed=True):
        state = ((state ^ octet) * _FNV_PRIME) & _WORD
    return signed(state)


def hash_murmur2(value: Value, seed: Value) -> Value:
    """Hash an integer by MurmurHash2, 64 bits."""
    block = (whole(value) * _MURMUR_FACTOR) & _WORD
    block = ((block ^ block >> _MURMUR_SHIFT) * _MURMUR_FACTOR) & _WORD
    state = (whole(seed) ^ _MURMUR_LENGTH * _MURMUR_FACTOR) & _WORD
    state = ((state ^ block) * _MURMUR_FACTOR) & _WORD
    state = ((state ^ state >> _MURMUR_SHIFT) * _MURMUR_FACTOR) & _WORD
    return signed(state ^ state >> _MURMUR_SHIFT)


def permute(value: Value, size: Value, seed: Value) -> Value:
    """Return where a pseudorandom permutation of 0 to `size` - 1 puts a value, as PostgreSQL 15 and newer do it.

    Each round multiplies by an odd number, flips bits and rotates, over the lower and then the upper power of two in
    the range, and shifts all by an offset: each step is a bijection, so that all of them together are.
    """
    number, count, state = whole(value), whole(size), whole(seed)
    if count <= 0:
        raise UsageError(f"the size {count} given to permute is not above 0", "Give the number of values to permute.")
    position = (number & _WORD) % count
    words, bits = _words(state & _WORD), count.bit_length() - 1
    for _ in range(_PERMUTE_ROUNDS if count > 1 else 0):
        position = _scrambled(position, words, bits)
        position = count - 1 - _scrambled(count - 1 - position, words, bits)
        position = (position + _below(count, words)) % count
    return position


def _scrambled(position: int, words: Iterator[int], bits: int) -> int:
    mask = (1 << bits) - 1
    factor, flips = next(words) & mask | 1, next(words) & mask
    if position > mask:
        return position
    position = (position * factor ^ flips) & mask
    return position << 1 & mask | position >> bits - 1


def _below(count: int, words: Iterator[int]) -> int:
    shift = 64 - (count - 1).bit_length()
    return next(word for draw in words if (word := draw >> shift) < count)


def _words(seed: int) -> Iterator[int]:
    """Yield what xoroshiro128** draws, seeded by splitmix64."""
    first, second = (_mixed(seed + step * _GOLDEN_RATIO & _WORD) for step in (1, 2))
    while True:
        yield _rotated(first * 5 & _WORD, 7) * 9 & _WORD
        both = first ^ second
        first, second = _rotated(first, 24) ^ both ^ both << 16 & _WORD, _rotated(both, 37)


def _mixed(word: int) -> int:
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 & _WORD
    word = (word ^ word >> 27) * 0x94D049BB133111EB & _WORD
    return word ^ word >> 31


def _rotated(word: int, bits: int) -> int:
    return (word << bits | word >> 64 - bits) & _WORD


def _range(low: Value, high: Value) -> tuple[int, int]:
    first = low if type(low) is int else whole(low)
    last = high if type(high) is int else whole(high)
    if first > last:
        raise UsageError(f"the range from {first} to {last} is empty", "Give the smaller bound first.")
    if last - first >= INTEGER_MAXIMUM:
        raise UsageError(f"the range from {first} to {last} is too large", "It may have 9223372036854775807 values.")
    return first, last - first + 1


def _placed(first: int, size: int, share: float) -> int:
    # in a range beyond the 53 bits of a double, the product may be rounded up to the size itself
    return first + min(int(size * share), size - 1)


def _bad_parameter(function: str, value: float, needed: str) -> UsageError:
    return UsageError(f"the parameter {value:.15g} of {function} is not allowed", f"It must be {needed}.")


@lru_cache(maxsize=64)
def _hat_bounds(size: int, exponent: float) -> tuple[float, float]:
    return _hat_area(1.5, exponent) - 1.0, _hat_area(size + 0.5, exponent)


def _hat_area(position: float, exponent: float) -> float:
    """Return the integral of x ** -exponent from 1 to a position."""
    return -math.expm1((1.0 - exponent) * math.log(position)) / (exponent - 1.0)


def _hat_position(area: float, exponent: float) -> float:
    """Return where the integral reaches an area; the last integer where rounding leaves nothing."""
    rest = area * (exponent - 1.0)
    return math.exp(math.log1p(-rest) / (1.0 - exponent)) if rest < 1.0 else float(INTEGER_MAXIMUM)
