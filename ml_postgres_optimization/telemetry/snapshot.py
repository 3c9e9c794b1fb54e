"""What the server and its host say of themselves at one instant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StatementCounters:
    """Running totals of one normalised query, from ``pg_stat_statements``.

    Keyed by (queryid, user oid, database oid) in a `Snapshot`; ``toplevel`` entries only.
    """

    calls_total: int
    execution_seconds_total: float
    rows_total: int
    shared_blocks_read_total: int
    shared_blocks_hit_total: int
    temp_blocks_written_total: int
    wal_bytes_total: float


StatementKey = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Every counter and gauge of the server and host at one instant.

    Parameters
    ----------
    taken_at : datetime
        Wall time, aware.
    monotonic_seconds : float
    values : mapping of str to float
        ``<source>.<name>``, ``database.commits_total`` for one. A name that ends in ``_total`` is a counter
        that only grows; any other is a gauge.
    statements : mapping
        Counters of each normalised query; empty where ``pg_stat_statements`` is not there (then `unseen` says so).
    unseen : mapping of str to str
        Source → why it could not be read. Empty is never taken for zero.
    """

    taken_at: datetime
    monotonic_seconds: float
    values: Mapping[str, float]
    statements: Mapping[StatementKey, StatementCounters] = field(default_factory=dict)
    unseen: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ActivitySample:
    """Who is doing what right now, from ``pg_stat_activity``; taken about once a second.

    Parameters
    ----------
    active_sessions_by_wait : mapping of str to int
        Client and parallel-worker backends in a query, by wait class (``CPU`` when waiting for nothing), our own
        sessions left out.
    connections : int
        All client backends, our own left out.
    blocked_sessions : int
        Sessions that wait for a heavyweight lock.
    idle_in_transaction_sessions : int
    longest_transaction_seconds : float
    """

    active_sessions_by_wait: Mapping[str, int]
    connections: int
    blocked_sessions: int
    idle_in_transaction_sessions: int
    longest_transaction_seconds: float


@dataclass(frozen=True, slots=True)
class MemoryReading:
    """How much memory there is left before something is killed.

    Parameters
    ----------
    left_bytes : float
        What may still be taken, page cache that can be given up included: the least of what the machine and every
        control group of the server have left.
    shared_bytes : float
        Shared memory in use. A server's buffers are taken as they are first touched, up to a size that is known
        before: that this grows is no leak.
    """

    left_bytes: float
    shared_bytes: float


class Collector(Protocol):
    """Observe a server without changing it."""

    def snapshot(self) -> Snapshot:
        """Read every counter and gauge."""

    def activity(self) -> ActivitySample:
        """Read who is doing what."""
