"""Which knobs can have an effect at all, given what the load does."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from ml_postgres_optimization.knobs.catalogue import Catalogue
from ml_postgres_optimization.telemetry import Window

# Far below what any load comes to that is worth tuning for it; own judgement.
_WAL_BYTES_PER_SECOND = 1 << 10
_BLOCKS_PER_SECOND = 100
# A parallel plan alone costs a few milliseconds, a compilation more, and what fits into the least of work_mem less.
_LONG_SECONDS = 0.01


def relevant(window: Window, catalogue: Catalogue, cpus: float) -> frozenset[str]:
    """Return the knobs along which a search may find something; whatever cannot be seen may be there.

    Parameters
    ----------
    window : Window
        Of the load that is tuned for.
    catalogue : Catalogue
    cpus : float
        Processors of the server.
    """
    absent = {activity for activity, is_seen in _SEEN.items() if not is_seen(window, cpus)}
    return frozenset(name for name, knob in catalogue.items() if knob.acts_on not in absent)


def _writes(window: Window, _cpus: float) -> bool:
    return window.rates.get("wal.generated_bytes_per_second", _WAL_BYTES_PER_SECOND) >= _WAL_BYTES_PER_SECOND


def _reads_blocks(window: Window, _cpus: float) -> bool:
    return window.rates.get("database.read_blocks_per_second", _BLOCKS_PER_SECOND) >= _BLOCKS_PER_SECOND


def longest_seconds(window: Window, cpus: float) -> float:
    """Return how long the slowest kind of operation takes on average, or query where operations are not ours.

    Time that it waits for a processor is left out, as far as sessions share them evenly. Infinite where none is seen.
    """
    share = min(1.0, cpus / max(sum(window.waits.values()), cpus))
    means = [operation.service.mean_seconds for operation in window.operations.values() if operation.service.total]
    if not means:
        called = [counters for counters in window.statements.values() if counters.calls_total]
        means = [counters.execution_seconds_total / counters.calls_total for counters in called]
    return max(means) * share if means else math.inf


def _has_long_statements(window: Window, cpus: float) -> bool:
    has_spilled = window.rates.get("database.temp_bytes_per_second", 0.0) > 0
    return has_spilled or longest_seconds(window, cpus) >= _LONG_SECONDS


_SEEN: Mapping[str, Callable[[Window, float], bool]] = {
    "wal": _writes,
    "block_reads": _reads_blocks,
    "long_statements": _has_long_statements,
}
