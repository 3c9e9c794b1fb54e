"""What an engineer would try next who has looked at the server: a setting for each symptom that a window shows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from ml_postgres_optimization.knobs.catalogue import Catalogue
from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.knobs.knob import Knob, KnobValue
from ml_postgres_optimization.knobs.machine import Machine
from ml_postgres_optimization.knobs.rendering import rounded
from ml_postgres_optimization.telemetry import Window
from ml_postgres_optimization.tuning.drafting import Draft
from ml_postgres_optimization.tuning.relevance import longest_seconds

# Thresholds are our own judgement: a symptom has to be plain, since a trial is spent on it.
_SPILL_BYTES_PER_SECOND = 1 << 20
_BUSY_SHARE = 0.8
# On a processor: beyond the first no longer the look-up of a few rows, of which there is but one plan; from the
# second on a parallel plan is thought of, from the third on a compilation (with the costs that are the default).
_LOOKED_UP_SECONDS, _PLANNED_SECONDS, _LONG_SECONDS = 0.001, 0.01, 0.3
_CACHED_SHARE = 0.5
_SYNCS_PER_SECOND = 50
_FORCED_CHECKPOINTS_PER_SECOND = 1 / 600
_DISK_READ_BYTES_PER_SECOND = 10 << 20
_BACKEND_WRITES_PER_SECOND = 50
# Sessions that wait for one of these are not at work.
_IDLE_WAITS = frozenset({"Client", "Timeout"})


@dataclass(frozen=True, slots=True)
class _Patient:
    """What is known of the server, and what was in force while it was looked at."""

    window: Window
    machine: Machine
    seen_under: Configuration

    @property
    def at_work(self) -> float:
        """Average sessions, parallel workers included, that run or wait for something of the server's."""
        return sum(count for kind, count in self.window.waits.items() if kind not in _IDLE_WAITS)

    @property
    def is_short_of_processors(self) -> bool:
        """Whether hardly any processor is idle."""
        busy = self.rate("host.cpu_busy_seconds_per_second")
        return max(busy, self.window.waits.get("CPU", 0.0)) >= _BUSY_SHARE * self.machine.cpus

    @property
    def longest_seconds(self) -> float:
        """How long the slowest kind of statement takes on a processor; infinite where none is seen."""
        return longest_seconds(self.window, self.machine.cpus)

    def takes_at_least(self, seconds: float) -> bool:
        """Tell whether a kind of statement is seen to take so long."""
        return math.isfinite(self.longest_seconds) and self.longest_seconds >= seconds

    def rate(self, name: str) -> float:
        """Return a rate; 0 where it could not be seen."""
        return self.window.rates.get(name, 0.0)

    def number(self, name: str) -> float:
        """Return a knob's value at the time; 0 where it is not ours to tune."""
        value = self.seen_under.get(name, 0)
        return 0.0 if isinstance(value, str) else float(value)


_Remedy = Callable[[_Patient], tuple[Mapping[str, KnobValue], str] | None]


def remedies(window: Window, seen_under: Configuration, machine: Machine, catalogue: Catalogue) -> Iterator[Draft]:
    """Yield what is worth a trial, each by itself, given what a window shows.

    Parameters
    ----------
    window : Window
        Of the load that is tuned for; what it could not see is no symptom.
    seen_under : Configuration
        In force during it. A knob that has changed since was treated already, and is left alone.
    machine : Machine
    catalogue : Catalogue
        Confronted with this server; only knobs that may be tuned are proposed, within their ranges.

    References
    ----------
    Each remedy names the page of PostgreSQL's manual that it follows.
    """
    patient = _Patient(window, machine, seen_under)
    for remedy in _REMEDIES:
        if (found := remedy(patient)) is None:
            continue
        values, reason = found
        ours = seen_under.keys() & catalogue.tunable.keys()
        fitting = {name: _clipped(value, catalogue[name]) for name, value in values.items() if name in ours}
        if any(value != seen_under[name] for name, value in fitting.items()):
            yield Draft(_unless_treated(fitting, seen_under), "symptom", reason)


def _unless_treated(
    values: Mapping[str, KnobValue], seen_under: Configuration
) -> Callable[[Configuration], dict[str, KnobValue]]:
    def still_due(incumbent: Configuration) -> dict[str, KnobValue]:
        return {name: value for name, value in values.items() if incumbent.get(name) == seen_under.get(name)}

    return still_due


def _clipped(value: KnobValue, knob: Knob) -> KnobValue:
    if isinstance(value, bool | str) or knob.minimum is None or knob.maximum is None:
        return value
    return rounded(min(max(float(value), knob.minimum), knob.maximum), knob.kind)


def _parallel_query(patient: _Patient) -> tuple[Mapping[str, KnobValue], str] | None:
    """Manual, "How Parallel Query Works": workers take processors that other sessions may need."""
    workers, cpus = int(patient.number("max_parallel_workers_per_gather")), patient.machine.cpus
    is_felt = workers > 0 and patient.takes_at_least(_PLANNED_SECONDS)
    if is_felt and patient.is_short_of_processors and patient.at_work > cpus:
        reason = f"{patient.at_work:.1f} sessions at work leave none of {cpus:g} processors to parallel workers"
        return {"max_parallel_workers_per_gather": 0}, reason
    return None


def _random_page_cost(patient: _Patient) -> tuple[Mapping[str, KnobValue], str] | None:
    """Manual, "Planner Cost Constants": less where data are likely to be in the cache."""
    data = patient.window.gauges.get("tables.estimated_bytes", 0.0)
    limit = patient.machine.memory_limit_bytes
    is_felt = patient.number("random_page_cost") > 2 and patient.takes_at_least(_LOOKED_UP_SECONDS)
    if is_felt and 0 < data < _CACHED_SHARE * limit:
        return {"random_page_cost": 1.1}, f"the data, {data / 2**20:,.0f} MB, fit into the memory"
    return None


def _jit(patient: _Patient) -> tuple[Mapping[str, KnobValue], str] | None:
    """Manual, "When to JIT?": compilation pays for long queries that are short of processors."""
    is_felt = patient.seen_under.get("jit") is False and patient.takes_at_least(_LONG_SECONDS)
    if not is_felt or not patient.is_short_of_processors:
        return None
    return {
        "jit": True
    }, f"statements that take {patient.longest_seconds:.1f} s on a processor earn the compilation back"


def _work_mem(patient: _Patient) -> tuple[Mapping[str, KnobValue], str] | None:
    """Manual, "Memory": sorts and hashes beyond work_mem go to temporary files."""
    spilled = patient.rate("database.temp_bytes_per_second")
    if spilled < _SPILL_BYTES_PER_SECOND:
        return None
    reason = f"{spilled / 2**20:,.0f} MB a second go to temporary files"
    return {"work_mem": int(2 * patient.number("work_mem"))}, reason


def _hash_memory(patient: _Patient) -> tuple[Mapping[str, KnobValue], str] | None:
    """Manual, "Memory": more of it for hashing where spilling is regular, sorting not concerned."""
    spilled = patient.rate("database.temp_bytes_per_second")
    if spilled < _SPILL_BYTES_PER_SECOND:
        return None
    reason = f"{spilled / 2**20:,.0f} MB a second go to temporary files; hashing may take more memory"
    return {"hash_mem_multiplier": 2 * patient.number("hash_mem_multiplier")}, reason


def _commit_delay(patient: _Patient) -> tuple[Mapping[str, KnobValue], str] | None:
    """Manual, "WAL Configuration": half of the time of a flush, which commits then share.

    By Little's law, a flush takes what sessions wait for the disk, on average, over the flushes a second; at most.
    """
    syncs = patient.rate("wal.syncs_per_second")
    if syncs < _SYNCS_PER_SECOND or patient.at_work < 2 * patient.number("commit_siblings"):
        return None
    flush_microseconds = 1e6 * patient.window.waits.get("IO", 0.0) / syncs
    if flush_microseconds < 20:
        return None
    reason = f"{syncs:,.0f} flushes a second of {flush_microseconds:,.0f} µs at most can be shared by more commits"
    return {"commit_delay": int(flush_microseconds / 2)}, reason


def _checkpoints(patient: _Patient) -> tuple[Mapping[str, KnobValue], str] | None:
    """Manual, "WAL Configuration": checkpoints that the volume of WAL forces come too often."""
    if patient.rate("checkpointer.requested_checkpoints_per_second") < _FORCED_CHECKPOINTS_PER_SECOND:
        return None
    values = {"max_wal_size": int(4 * patient.number("max_wal_size")), "checkpoint_timeout": 900}
    return values, "the volume of WAL forces checkpoints"


def _wal_compression(patient: _Patient) -> tuple[Mapping[str, KnobValue], str] | None:
    """Manual, "Write Ahead Log", wal_compression: it costs processor time."""
    if patient.is_short_of_processors and patient.seen_under.get("wal_compression", "off") != "off":
        return {"wal_compression": "off"}, "processors are what is short, and compression takes some"
    return None


def _io_concurrency(patient: _Patient) -> tuple[Mapping[str, KnobValue], str] | None:
    """Manual, "Asynchronous Behavior": more requests at once where a disk can serve them."""
    read = patient.rate("host.disk_read_bytes_per_second")
    if read < _DISK_READ_BYTES_PER_SECOND or patient.number("effective_io_concurrency") >= 200:
        return None
    return {"effective_io_concurrency": 200}, f"{read / 2**20:,.0f} MB a second come from the disk"


def _background_writer(patient: _Patient) -> tuple[Mapping[str, KnobValue], str] | None:
    """Manual, "Background Writer": it should find clean buffers before sessions have to write themselves."""
    written = patient.rate("background_writer.backend_written_blocks_per_second")
    if written < _BACKEND_WRITES_PER_SECOND:
        return None
    values = {"bgwriter_delay": 50, "bgwriter_lru_maxpages": 1000}
    return values, f"sessions write {written:,.0f} blocks a second themselves"


# What usually brings most comes first.
_REMEDIES: tuple[_Remedy, ...] = (
    _parallel_query,
    _random_page_cost,
    _jit,
    _work_mem,
    _hash_memory,
    _commit_delay,
    _wal_compression,
    _checkpoints,
    _io_concurrency,
    _background_writer,
)
