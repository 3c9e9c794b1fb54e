"""How much memory a server may come to use under a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ml_postgres_optimization.knobs.configuration import CONCURRENCY
from ml_postgres_optimization.knobs.knob import KnobValue
from ml_postgres_optimization.knobs.machine import Machine
from ml_postgres_optimization.knobs.rendering import bytes_of

MEMORY_SHARE = 0.8

# The parts that a knob can play in the prediction; `memory_rule` in the catalogue names one of them.
MEMORY_RULES = frozenset(
    {
        "active sessions",
        "autovacuum worker",
        "autovacuum workers",
        "connections",
        "hash node",
        "maintenance",
        "processes",
        "query node",
        "shared",
    }
)

# PostgreSQL's own defaults, for what we are not told; the newest major's where they differ.
_DEFAULTS: Mapping[str, float] = {
    "autovacuum_max_workers": 3,
    "autovacuum_work_mem": -1,
    "hash_mem_multiplier": 2.0,
    "maintenance_work_mem": 65_536,
    "max_connections": 100,
    "max_parallel_workers": 8,
    "max_parallel_workers_per_gather": 2,
    "max_worker_processes": 8,
    "shared_buffers": 16_384,
    "temp_buffers": 1_024,
    "wal_buffers": -1,
    "work_mem": 4_096,
}
MEMORY_SETTINGS = frozenset(_DEFAULTS)

_MIB = 1 << 20
_CONNECTION_BYTES = 5 * _MIB
_SORT_NODES = 1
_HASH_NODES = 2
_SHARED_OVERHEAD = 1.026
_SHARED_FIXED_BYTES = 16 * _MIB
_SHARED_PROCESS_BYTES = 50_000
_LARGEST_AUTOMATIC_WAL_BUFFERS_BYTES = 16 * _MIB


@dataclass(frozen=True, slots=True)
class MemoryForecast:
    """The most that a server is expected to use.

    Parameters
    ----------
    total_bytes : int
    parts : mapping of str to int
        What the total consists of: ``shared``, ``connections``, ``queries``, ``maintenance``, ``temporary``.
    """

    total_bytes: int
    parts: Mapping[str, int]

    @property
    def largest_part(self) -> str:
        """The part that takes most."""
        return max(self.parts, key=lambda part: self.parts[part])


def predicted_peak_bytes(
    values: Mapping[str, KnobValue], *, connections: int | None = None, active: int | None = None
) -> MemoryForecast:
    """Predict the peak of the server's memory: never less for a larger value of a knob, special values aside.

    Parameters
    ----------
    values : mapping of str to KnobValue
        Settings in base units; PostgreSQL's default stands in for one that is absent.
    connections : int, optional
        Sessions at the same time; ``max_connections`` where nobody knows better.
    active : int, optional
        Those in a query at the same time; ``client.concurrency`` where it is set, else all connections.

    Notes
    -----
    The sum of: shared memory; 5 MB for each connection; ``temp_buffers`` for each connection; for each process of a
    query one sort of ``work_mem`` and two hashes of ``work_mem × hash_mem_multiplier``; ``autovacuum_work_mem`` for
    each autovacuum worker, and ``maintenance_work_mem`` once for a command by hand. Parallel workers add processes
    up to what ``max_parallel_workers`` and ``max_worker_processes`` allow for all queries together.

    References
    ----------
    PostgreSQL manual, "Resource Consumption: Memory" (runtime-config-resource). Three nodes a query: pgtune's divisor
    of ``work_mem``. 5 MB a connection: own measurement on PostgreSQL 15, private memory of a session is 1.0 MB when
    new, 3.5 MB after prepared statements on 200 tables, 5.0 MB after a large catalogue query. Shared memory: own
    measurement of ``postgres -C shared_memory_size`` on 15 to 18, 143 MB (18: 150 MB) for 128 MB and 100 connections,
    16,771 MB (16,823 MB) for 16 GB, 378 MB (389 MB) for 5,000 connections; the prediction is never below these, and
    up to a tenth above them.
    """
    known = {**_DEFAULTS, **{name: float(value) for name, value in values.items() if not isinstance(value, str)}}
    connected = known["max_connections"] if connections is None else connections
    querying = known.get(CONCURRENCY, connected) if active is None else active
    parts = {
        "shared": _shared_bytes(known),
        "connections": connected * _CONNECTION_BYTES,
        "queries": _processes(known, querying) * _query_bytes(known),
        "maintenance": _maintenance_bytes(known),
        "temporary": connected * bytes_of(known["temp_buffers"], "8kB"),
    }
    whole = {part: round(size) for part, size in parts.items()}
    return MemoryForecast(sum(whole.values()), whole)


def allowed_bytes(machine: Machine) -> int:
    """Return how much of the machine's memory a configuration may come to use: 80 %.

    References
    ----------
    Own rule: the rest is for the page cache, the system, and what the prediction misses.
    """
    return int(machine.memory_limit_bytes * MEMORY_SHARE)


def _shared_bytes(known: Mapping[str, float]) -> float:
    buffers = bytes_of(known["shared_buffers"], "8kB")
    wal_buffers = bytes_of(known["wal_buffers"], "8kB")
    if wal_buffers < 0:
        wal_buffers = min(buffers // 32, _LARGEST_AUTOMATIC_WAL_BUFFERS_BYTES)
    processes = (known["max_connections"] + known["max_worker_processes"]) * _SHARED_PROCESS_BYTES
    return buffers * _SHARED_OVERHEAD + wal_buffers + processes + _SHARED_FIXED_BYTES


def _processes(known: Mapping[str, float], querying: float) -> float:
    allowed = min(known["max_parallel_workers"], known["max_worker_processes"])
    return querying + min(querying * known["max_parallel_workers_per_gather"], allowed)


def _query_bytes(known: Mapping[str, float]) -> float:
    nodes = _SORT_NODES + _HASH_NODES * known["hash_mem_multiplier"]
    return nodes * bytes_of(known["work_mem"], "kB")


def _maintenance_bytes(known: Mapping[str, float]) -> float:
    by_hand = bytes_of(known["maintenance_work_mem"], "kB")
    own = bytes_of(known["autovacuum_work_mem"], "kB")
    return by_hand + known["autovacuum_max_workers"] * (by_hand if own < 0 else own)
