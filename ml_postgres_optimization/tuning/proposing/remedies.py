"""What an engineer would try next who has looked at the server: a setting for each symptom that a window shows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from ml_postgres_optimization.knobs.catalogue import Catalogue
from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.knobs.knob import Knob, KnobValue
from ml_postgres_optimization.knobs.rendering import rounded
from ml_postgres_optimization.tuning.proposing.drafting import Draft
from ml_postgres_optimization.tuning.proposing.relevance import Observed

# Thresholds are our own judgement: a symptom has to be plain, since a trial is spent on it.
_MIB = 1 << 20
_SPILL_BYTES_PER_SECOND = _MIB
_WAL_BYTES_PER_SECOND = _MIB
_CACHED_SHARE = 0.5
_SYNCS_PER_SECOND, _MANY_SYNCS_PER_SECOND, _SHARED_COMMITS = 50, 500, 4
_READ_BLOCKS_PER_SECOND = 100
_SHORTEST_FLUSH_MICROSECONDS = 20
_DISK_READ_BYTES_PER_SECOND = 10 * _MIB
# On a processor: beyond the first no longer the look-up of a few rows, of which there is but one plan; from the
# second on a parallel plan is thought of, from the third on a compilation (with the costs that are the default).
_LOOKED_UP_SECONDS, _PLANNED_SECONDS, _LONG_SECONDS = 0.001, 0.01, 0.3
# Numbers that a remedy lowers; all others it raises. A range that ends before what is in force would turn it round.
_LOWERED = frozenset({"max_parallel_workers_per_gather", "random_page_cost"})

_Asked = tuple[Mapping[str, KnobValue], str]


@dataclass(frozen=True, slots=True)
class _Patient:
    """What is seen of the server, and what was in force meanwhile."""

    observed: Observed
    seen_under: Configuration

    def takes_at_least(self, seconds: float) -> bool:
        """Tell whether a kind of statement is seen to take so long."""
        longest = self.observed.longest_seconds
        return math.isfinite(longest) and longest >= seconds

    def rate(self, name: str) -> float:
        """Return a rate; 0 where it could not be seen."""
        return self.observed.rate(name) or 0.0

    def number(self, name: str, otherwise: float = 0.0) -> float:
        """Return a knob's value at the time; `otherwise` where it is not ours to tune."""
        value = self.seen_under.get(name, otherwise)
        return otherwise if isinstance(value, str) else float(value)


def remedies(observed: Observed, seen_under: Configuration, catalogue: Catalogue) -> Iterator[Draft]:
    """Yield what is worth a trial, each by itself, given what a window shows.

    Parameters
    ----------
    observed : Observed
        Of the load that is tuned for; what it could not see is no symptom.
    seen_under : Configuration
        In force during it, and now.
    catalogue : Catalogue
        Confronted with this server; only knobs that may be tuned are proposed, within their ranges.

    References
    ----------
    Each remedy names the page of PostgreSQL's manual that it follows.
    """
    patient = _Patient(observed, seen_under)
    ours = seen_under.keys() & catalogue.tunable.keys()
    for remedy in _REMEDIES:
        if (asked := remedy(patient)) is None:
            continue
        values, reason = asked
        fitting = {name: _clipped(value, catalogue[name]) for name, value in values.items() if name in ours}
        helping = {name: value for name, value in fitting.items() if _helps(name, value, seen_under[name])}
        if helping:
            yield Draft.of(helping, "symptom", reason)


def _clipped(value: KnobValue, knob: Knob) -> KnobValue:
    if isinstance(value, bool | str) or knob.minimum is None or knob.maximum is None:
        return value
    return rounded(min(max(float(value), knob.minimum), knob.maximum), knob.kind)


def _helps(name: str, value: KnobValue, now: KnobValue) -> bool:
    """Tell whether a value goes where its remedy wants to go."""
    if isinstance(value, bool | str) or isinstance(now, bool | str):
        return value != now
    return value < now if name in _LOWERED else value > now


def _parallel_query(patient: _Patient) -> _Asked | None:
    """Manual, "How Parallel Query Works": workers take processors that other sessions may need."""
    sessions, cpus = patient.observed.sessions_at_work or 0.0, patient.observed.machine.cpus
    is_felt = patient.takes_at_least(_PLANNED_SECONDS) and patient.observed.is_short_of_processors
    if not is_felt or sessions <= cpus:
        return None
    reason = f"{sessions:.1f} sessions at work leave none of {cpus:g} processors to parallel workers"
    return {"max_parallel_workers_per_gather": 0}, reason


def _random_page_cost(patient: _Patient) -> _Asked | None:
    """Manual, "Planner Cost Constants": less where data are likely to be in the cache."""
    data = patient.observed.window.gauges.get("tables.estimated_bytes", 0.0)
    limit = patient.observed.machine.memory_limit_bytes
    is_felt = patient.number("random_page_cost") > 2 and patient.takes_at_least(_LOOKED_UP_SECONDS)
    if not is_felt or not 0 < data < _CACHED_SHARE * limit:
        return None
    return {"random_page_cost": 1.1}, f"the data, {data / _MIB:,.0f} MB, fit into the memory"


def _jit(patient: _Patient) -> _Asked | None:
    """Manual, "When to JIT?": compilation pays for long queries that are short of processors."""
    if not patient.takes_at_least(_LONG_SECONDS) or not patient.observed.is_short_of_processors:
        return None
    longest = patient.observed.longest_seconds
    return {"jit": True}, f"statements that take {longest:.1f} s on a processor earn the compilation back"


def _work_mem(patient: _Patient) -> _Asked | None:
    """Manual, "Memory": sorts and hashes beyond work_mem go to temporary files."""
    spilled = patient.rate("database.temp_bytes_per_second")
    if spilled < _SPILL_BYTES_PER_SECOND:
        return None
    reason = f"{spilled / _MIB:,.0f} MB a second go to temporary files"
    return {"work_mem": int(2 * patient.number("work_mem"))}, reason


def _hash_memory(patient: _Patient) -> _Asked | None:
    """Manual, "Memory": more of it for hashing where spilling is regular, sorting not concerned."""
    spilled = patient.rate("database.temp_bytes_per_second")
    if spilled < _SPILL_BYTES_PER_SECOND:
        return None
    reason = f"{spilled / _MIB:,.0f} MB a second go to temporary files, and hashing may take more memory"
    return {"hash_mem_multiplier": 2 * patient.number("hash_mem_multiplier")}, reason


def _commit_delay(patient: _Patient) -> _Asked | None:
    """Manual, "WAL Configuration": commits share a flush that waits a little; half of its time is a start.

    The server waits only while `commit_siblings` other transactions are open, idle ones included.
    """
    syncs, window = patient.rate("wal.syncs_per_second"), patient.observed.window
    idle = patient.rate("database.idle_in_transaction_seconds_per_second")
    transactions = (patient.observed.sessions_at_work or 0.0) + idle
    if syncs < _SYNCS_PER_SECOND or transactions < 2 * patient.number("commit_siblings", otherwise=5):
        return None
    timed = patient.observed.rate("wal.sync_seconds_per_second")
    if timed is None and syncs >= _MANY_SYNCS_PER_SECOND:
        return _shared_flushes(syncs, patient.rate("database.commits_per_second"))
    # by Little's law a flush takes what sessions wait for the disk over the flushes, where hardly any wait is a read
    reads = patient.rate("database.read_blocks_per_second") >= _READ_BLOCKS_PER_SECOND
    waited = (0.0 if reads else window.waits.get("IO", 0.0)) if timed is None else timed
    microseconds = 1e6 * waited / syncs
    if microseconds < _SHORTEST_FLUSH_MICROSECONDS:
        return None
    reason = f"{syncs:,.0f} flushes a second, of about {microseconds:,.0f} µs each, can be shared by more commits"
    return {"commit_delay": int(microseconds / 2)}, reason


def _shared_flushes(syncs: float, commits: float) -> _Asked | None:
    """Ask for the time between two flushes, so that two become one: whatever they take, each costs a processor."""
    if commits >= _SHARED_COMMITS * syncs:
        return None
    reason = f"{syncs:,.0f} flushes a second, for {commits:,.0f} commits, cost less where more commits share one"
    return {"commit_delay": int(1e6 / syncs)}, reason


def _checkpoints(patient: _Patient) -> _Asked | None:
    """Manual, "WAL Configuration": checkpoints that the volume of WAL forces come too often.

    One is forced when half or a little more of max_wal_size is full (xlog.c, CalculateCheckpointSegments).
    """
    largest, timeout = patient.number("max_wal_size") * _MIB, patient.number("checkpoint_timeout", otherwise=300)
    target = patient.number("checkpoint_completion_target", otherwise=0.9)
    volume = patient.rate("wal.generated_bytes_per_second") * timeout
    if not largest or volume <= largest / (1 + target):
        return None
    reason = f"{volume / _MIB:,.0f} MB of WAL in {timeout:,.0f} s force checkpoints before their time"
    return {"max_wal_size": int(4 * largest / _MIB)}, reason


def _wal_compression(patient: _Patient) -> _Asked | None:
    """Manual, "Write Ahead Log", wal_compression: it costs processor time."""
    writes = patient.rate("wal.generated_bytes_per_second") >= _WAL_BYTES_PER_SECOND
    if not writes or not patient.observed.is_short_of_processors:
        return None
    # until PostgreSQL 14 it was on or off
    off = False if isinstance(patient.seen_under.get("wal_compression"), bool) else "off"
    return {"wal_compression": off}, "processors are what is short, and compression takes some"


def _io_concurrency(patient: _Patient) -> _Asked | None:
    """Manual, "Asynchronous Behavior": more requests at once where a disk can serve them."""
    read = patient.rate("host.disk_read_bytes_per_second")
    if read < _DISK_READ_BYTES_PER_SECOND:
        return None
    return {"effective_io_concurrency": 200}, f"{read / _MIB:,.0f} MB a second come from the disk"


def _background_writer(patient: _Patient) -> _Asked | None:
    """Manual, "Background Writer": rounds that it stops after bgwriter_lru_maxpages leave work to sessions."""
    stopped = patient.rate("background_writer.stopped_rounds_per_second")
    if stopped <= 0:
        return None
    return {"bgwriter_lru_maxpages": 1000}, f"the background writer stops {stopped:.1f} rounds a second for its limit"


# What usually brings most comes first.
_REMEDIES: tuple[Callable[[_Patient], _Asked | None], ...] = (
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
