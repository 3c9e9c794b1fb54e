"""The simulated server's mean latency as a function of configuration and concurrency.

Made to test trials, samplers and controllers against a truth that is known; it says nothing of a real server.
Mean latency is the product of independent factors, each 1 at its best:

========================================  ==========================================================  =============
factor                                    best at                                                     stock, 8 conn.
========================================  ==========================================================  =============
concurrency                               8 connections; a parabola in its logarithm                  1.00
``work_mem``                              32 MB, rises to 1.10 at a factor of 8 away                  1.10
``max_wal_size``                          8 GB, to 1.12 at a factor of 8                              1.12
``checkpoint_timeout``                    15 min, to 1.05 at a factor of 5                            1.02
``random_page_cost``                      1.1, to 1.10 at a factor of 4                               1.09
``effective_io_concurrency``              64, to 1.04 at a factor of 64                               1.04
``autovacuum_vacuum_cost_limit``          2,000 (-1 stands for 200), to 1.06 at a factor of 10        1.06
``jit``                                   off; on costs 1.06                                          1.06
``shared_buffers`` (needs a restart)      4 GB, to 1.25 at a factor of 32                             1.25
memory                                    ``work_mem`` × connections within a quarter of the memory;  1.00
                                          3 where it is beyond
========================================  ==========================================================  =============

So the best configuration without a restart is 1 / 1.6 of stock, and the other settings of the simulated server do
nothing: a sampler should find that out. The concurrency parabola goes through what was measured on two cores with
mixed operations at 4,500/s: a mean of 2.4 ms with 8 connections, 8.6 ms with 95.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ml_postgres_optimization.knobs.knob import KnobValue

MEMORY_BYTES = 8 * 1024**3
BEST_LATENCY_SECONDS = 0.0010
_BEST_CONCURRENCY = 8
_CONCURRENCY_WEIGHT = (8.6 / 2.4 - 1) / math.log(95 / _BEST_CONCURRENCY) ** 2
_STOCK_COST_LIMIT = 200
_JIT_COST = 1.06
_SWAP_COST = 3.0
_KIB = 1024
_BLOCK_BYTES = 8192

# name: (best value, factor away from it at which the cost is reached, cost), in the settings' base units
_PARABOLAS = {
    "work_mem": (32 * 1024, 8, 0.10),
    "max_wal_size": (8 * 1024, 8, 0.12),
    "checkpoint_timeout": (900, 5, 0.05),
    "random_page_cost": (1.1, 4, 0.10),
    "effective_io_concurrency": (64, 64, 0.04),
    "autovacuum_vacuum_cost_limit": (2000, 10, 0.06),
    "shared_buffers": (4 * 1024**3 // _BLOCK_BYTES, 32, 0.25),
}


def latency_seconds(configuration: Mapping[str, KnobValue], concurrency: int) -> float:
    """Return the mean latency without noise.

    Parameters
    ----------
    configuration : mapping of str to bool, int, float or str
        Base units; a knob that is absent is at its best.
    concurrency : int
        Connections in use, at least 1.

    Examples
    --------
    >>> latency_seconds({}, 8)
    0.001
    >>> latency_seconds({"jit": True}, 8) / latency_seconds({"jit": False}, 8)
    1.06
    """
    factor = _concurrency_factor(concurrency) * _memory_factor(configuration, concurrency)
    for name in _PARABOLAS:
        factor *= _parabola(name, configuration)
    return BEST_LATENCY_SECONDS * factor * (_JIT_COST if configuration.get("jit") else 1.0)


def starts_with(configuration: Mapping[str, KnobValue]) -> bool:
    """Tell whether the server would start: its shared buffers have to fit into the memory."""
    return float(configuration.get("shared_buffers", 0)) * _BLOCK_BYTES < MEMORY_BYTES


def _concurrency_factor(concurrency: int) -> float:
    return 1.0 + _CONCURRENCY_WEIGHT * math.log(max(1, concurrency) / _BEST_CONCURRENCY) ** 2


def _parabola(name: str, configuration: Mapping[str, KnobValue]) -> float:
    best, span, cost = _PARABOLAS[name]
    value = float(configuration.get(name, best))
    if value < 0:
        value = _STOCK_COST_LIMIT
    distance = math.log(max(value, 0.5) / best) / math.log(span)
    return 1.0 + cost * min(1.0, distance**2)


def _memory_factor(configuration: Mapping[str, KnobValue], concurrency: int) -> float:
    work_bytes = float(configuration.get("work_mem", 0)) * _KIB * concurrency
    return _SWAP_COST if work_bytes > MEMORY_BYTES / 4 else 1.0
