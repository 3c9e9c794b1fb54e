"""A straight line and a cycle, fitted together, and what they leave."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ml_postgres_optimization.soak.judging.drift.trend import Rest, Series

# With fewer repetitions a cycle and a drift cannot be told apart.
LEAST_CYCLES = 2
MOST_CORRELATION = 0.95
_CORRELATIONS = np.linspace(-0.5, 0.98, 75)


def without_cycle(values: Series, cycle_blocks: int) -> tuple[Series, Rest]:
    """Return the series without its cycle, level and slope kept, and what is left without these as well.

    Each place in the cycle has a level of its own, fitted by least squares together with one straight line: so the
    cycle keeps nothing of the drift, nor the drift of the cycle, wherever in it the run began.

    Parameters
    ----------
    values : ndarray of shape (n_blocks,)
        NaN where a block is missing.
    cycle_blocks : int
        Length of the cycle; 0 for none.

    Notes
    -----
    A fit takes correlation out of what it leaves. Its expectation under every AR(1) follows from the fit alone, and
    the correlation returned is the one whose expectation was found: the correction of K. H. Hamed (J. Hydrology 368
    (2009) 143) for a straight line, for whatever was fitted.
    """
    there = np.isfinite(values)
    design = _design(len(values), cycle_blocks)[there]
    design = design[:, (design != 0).any(axis=0)]
    solved = np.linalg.lstsq(design, values[there], rcond=None)[0]
    cycle = design[:, 2:] @ solved[2:] if cycle_blocks else np.zeros(there.sum())
    kept = values.copy()
    kept[there] = values[there] - (cycle - cycle.mean())
    rest = np.full(len(values), np.nan)
    rest[there] = values[there] - design @ solved
    return kept, _rest_of(rest, cycle_blocks)


def _design(blocks: int, cycle_blocks: int) -> NDArray[np.float64]:
    at = np.arange(blocks, dtype=np.float64)
    places = [(at % cycle_blocks == place).astype(np.float64) for place in range(1, cycle_blocks)]
    return np.column_stack([np.ones(blocks), at - at.mean(), *places])


def _rest_of(rest: Series, cycle_blocks: int) -> Rest:
    there = np.isfinite(rest)
    total = int(there.sum())
    left = max(2.0, total - 2 - max(0, cycle_blocks - 1))
    energy = float(np.nansum(rest**2))
    if energy <= 1e-24 * max(1, total):
        return Rest(0.0, 0.0, left)  # it fits exactly
    pairs = float(np.nansum(rest[1:] * rest[:-1])) / energy
    expected = _expected_correlations(len(rest), cycle_blocks, there.tobytes())
    correlation = float(np.clip(np.interp(pairs, expected, _CORRELATIONS), 0.0, MOST_CORRELATION))
    return Rest(correlation, (energy / left) ** 0.5, left)


@lru_cache(maxsize=64)
def _expected_correlations(blocks: int, cycle_blocks: int, there_bytes: bytes) -> NDArray[np.float64]:
    """Return the correlation that the rest of an AR(1) is expected to have, for each of `_CORRELATIONS`."""
    there = np.frombuffer(there_bytes, dtype=bool)
    design = _design(blocks, cycle_blocks)[there]
    left = np.zeros((blocks, blocks))
    left[np.ix_(there, there)] = np.eye(len(design)) - design @ np.linalg.pinv(design)
    distance = np.abs(np.subtract.outer(np.arange(blocks), np.arange(blocks)))
    expected = []
    for correlation in _CORRELATIONS:
        spread = left @ np.power(correlation, distance) @ left
        expected.append(float(np.trace(spread, 1) / np.trace(spread)))
    return np.maximum.accumulate(np.array(expected))
