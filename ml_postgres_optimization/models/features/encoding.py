"""Knob values and texts as numbers that a tree can split."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

from ml_postgres_optimization.knobs.configuration import is_of_role
from ml_postgres_optimization.knobs.knob import KnobValue
from ml_postgres_optimization.models.features.registry import KNOB_PREFIX

_TWO_STATES = {"off": 0.0, "on": 1.0}


def encode_text(text: str) -> float:
    """Return a fraction between 0 and 1 that stands for `text`, the same wherever and whenever it is met.

    Trees need no order between texts, only that they differ: two splits isolate any value. SQL can say the same:
    ``('x' || left(encode(sha256('lz4'), 'hex'), 8))::bit(32)::bigint / 2.0 ^ 32``.

    Examples
    --------
    >>> round(encode_text("lz4"), 6)
    0.844833
    """
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2.0**32


def encode_knob(value: KnobValue) -> float:
    """Return a knob's value as a number.

    Numbers become ``log2(1 + |value|)`` with their sign. This keeps every order, and so special values such as -1
    and 0 apart from all others; a threshold then falls on the geometric mean of two values, which suits sizes.

    Examples
    --------
    >>> encode_knob(4095), encode_knob(-1), encode_knob(True), encode_knob("off")
    (12.0, -1.0, 1.0, 0.0)
    """
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        return _TWO_STATES[value] if value in _TWO_STATES else encode_text(value)
    return math.copysign(math.log2(1.0 + abs(value)), value)


def encode_knobs(configuration: Mapping[str, KnobValue]) -> dict[str, float]:
    """Return the features ``knob.<name>`` of a configuration; settings of single roles are none of the server's."""
    return {KNOB_PREFIX + name: encode_knob(value) for name, value in configuration.items() if not is_of_role(name)}
