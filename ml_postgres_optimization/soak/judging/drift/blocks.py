"""Medians of minutes over blocks of time: robust, and with little memory from one to the next."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ml_postgres_optimization.soak.figures.fold import RunFigures
from ml_postgres_optimization.soak.judging.drift.trend import Series
from ml_postgres_optimization.soak.judging.metrics import Metric

HOUR_SECONDS = 3600.0
# Caches fill and connections open in the beginning: neither is a drift.
WARM_UP_RATIO = 0.1
# Runs too short for hours are cut into so many blocks.
_SHORT_RUN_BLOCKS = 24
_LEAST_MEASURED_RATIO = 0.5


@dataclass(frozen=True, slots=True)
class Blocks:
    """Medians of a metric.

    Parameters
    ----------
    medians : ndarray of shape (n_blocks,)
        NaN where less than half of a block was measured.
    block_seconds : float
    start_seconds : float
        Where the first block begins, since the run's start.
    """

    medians: Series
    block_seconds: float
    start_seconds: float

    def hours(self, block: int) -> float:
        """Return where a block begins, in hours since the run's start."""
        return (self.start_seconds + block * self.block_seconds) / HOUR_SECONDS


def blocks_of(figures: RunFigures, metric: Metric) -> Blocks:
    """Return a metric's medians by block, after the warm-up: a tenth of the run, at most an hour.

    Blocks are hours where the run gives at least 24 of them; else a 24th of the run, in whole minutes.
    """
    slot = figures.minutes.slot_seconds
    values = metric.values(figures.minutes)
    warm_up = min(HOUR_SECONDS, len(values) * slot * WARM_UP_RATIO)
    begin = int(np.ceil(warm_up / slot))
    rest = values[begin:]
    slots = _slots_in_a_block(len(rest), slot)
    blocks = len(rest) // slots
    cut = rest[: blocks * slots].reshape(blocks, slots)
    measured = np.isfinite(cut).mean(axis=1) >= _LEAST_MEASURED_RATIO
    medians = np.full(blocks, np.nan)
    medians[measured] = np.nanmedian(cut[measured], axis=1) if measured.any() else np.nan
    return Blocks(medians, slots * slot, begin * slot)


def _slots_in_a_block(slots: int, slot_seconds: float) -> int:
    hour = max(1, round(HOUR_SECONDS / slot_seconds))
    return hour if slots // hour >= _SHORT_RUN_BLOCKS - 1 else max(1, slots // _SHORT_RUN_BLOCKS)
