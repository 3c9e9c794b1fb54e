"""What a window shows of a load, and which knobs can have an effect at all under it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ml_postgres_optimization.knobs.catalogue import Catalogue
from ml_postgres_optimization.knobs.machine import Machine
from ml_postgres_optimization.telemetry import Window

# Far below what any load comes to that is worth tuning for it, above what our own records make; own judgement.
_WAL_BYTES_PER_SECOND = 4 << 10
_BLOCKS_PER_SECOND = 100
# A parallel plan alone costs a few milliseconds, a compilation more, and what fits into the least of work_mem less.
_LONG_SECONDS = 0.01
# What takes less of all the time is not what a load is tuned for: a nightly VACUUM, say.
_LEAST_TIME_SHARE = 0.01
_BUSY_SHARE = 0.8
# Sessions that wait for one of these are not at work.
_IDLE_WAITS = frozenset({"Client", "Timeout"})


@dataclass(frozen=True, slots=True)
class Observed:
    """What a window shows; what it could not see is None, or infinite.

    Parameters
    ----------
    window : Window
    machine : Machine
        Its processors count only where the server runs there.
    """

    window: Window
    machine: Machine

    def rate(self, name: str) -> float | None:
        """Return a rate of the window."""
        return self.window.rates.get(name)

    @property
    def sessions_at_work(self) -> float | None:
        """Average client sessions of the database in a statement; parallel workers are none."""
        return self.rate("database.active_seconds_per_second")

    @property
    def is_short_of_processors(self) -> bool:
        """Whether so many processes run, or wait for a processor, that hardly any processor is idle."""
        return self.machine.is_local and self.window.waits.get("CPU", 0.0) >= _BUSY_SHARE * self.machine.cpus

    @property
    def longest_seconds(self) -> float:
        """How long the slowest kind of operation takes on average, or query where operations are not ours.

        Of those that take a hundredth of the time at least. Time that it waits for a processor is left out, as far as
        sessions share them evenly. Infinite where none is seen.
        """
        total = sum(seconds for _, seconds in self._times())
        means = [seconds / count for count, seconds in self._times() if seconds >= _LEAST_TIME_SHARE * total]
        return max(means) * self._processor_share if total else math.inf

    @property
    def _processor_share(self) -> float:
        at_work = sum(count for kind, count in self.window.waits.items() if kind not in _IDLE_WAITS)
        return min(1.0, self.machine.cpus / at_work) if self.machine.is_local and at_work else 1.0

    def _times(self) -> list[tuple[int, float]]:
        """Return how many of each kind ended, and the seconds that they took together."""
        kinds = [operation.service for operation in self.window.operations.values()]
        times = [(service.total, service.total * service.mean_seconds) for service in kinds if service.total]
        if times:
            return times
        queries = self.window.statements.values()
        return [(query.calls_total, query.execution_seconds_total) for query in queries if query.calls_total > 0]


def relevant(observed: Observed, catalogue: Catalogue) -> frozenset[str]:
    """Return the knobs along which a search may find something; whatever cannot be seen may be there."""
    absent = {activity for activity, is_seen in _SEEN.items() if not is_seen(observed)}
    return frozenset(name for name, knob in catalogue.items() if knob.acts_on not in absent)


def _writes(observed: Observed) -> bool:
    written = observed.rate("wal.generated_bytes_per_second")
    return written is None or written >= _WAL_BYTES_PER_SECOND


def _reads_blocks(observed: Observed) -> bool:
    read = observed.rate("database.read_blocks_per_second")
    return read is None or read >= _BLOCKS_PER_SECOND


def _has_long_statements(observed: Observed) -> bool:
    has_spilled = (observed.rate("database.temp_bytes_per_second") or 0.0) > 0
    return has_spilled or observed.longest_seconds >= _LONG_SECONDS


_SEEN: Mapping[str, Callable[[Observed], bool]] = {
    "wal": _writes,
    "block_reads": _reads_blocks,
    "long_statements": _has_long_statements,
}
