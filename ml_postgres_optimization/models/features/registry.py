"""Every feature by name: what it is, and its unit."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ml_postgres_optimization.retry.classification import ErrorClass

KNOB_PREFIX = "knob."
MIX_PREFIX = "mix."
OPERATION_KINDS = ("read", "write", "update", "delete", "transaction", "bulk_insert", "aggregate", "join")
# Wait classes of pg_stat_activity.wait_event_type, and CPU for a session that waits for nothing:
# https://www.postgresql.org/docs/current/monitoring-stats.html#WAIT-EVENT-TABLE
WAIT_CLASSES = ("CPU", "LWLock", "Lock", "BufferPin", "IO", "IPC", "Client", "Timeout", "Extension")

LOAD_CONTEXT: Mapping[str, str] = {
    "load.offered_per_second": "operations that came due, per second, answered or not; transactions per "
    "second where operations are not ours; unknown in a closed loop, where it follows from the latency",
    "load.level": "name of the load level, as a fraction from 0 to 1 that stands for the text",
    **{f"{MIX_PREFIX}{kind}": f"share of {kind} operations among all finished, 0 to 1" for kind in OPERATION_KINDS},
}
"""What the load is like whatever the server does with it: the context of a response surface."""

_LOAD = {
    "load.throughput_per_second": "operations that succeeded, or transactions that were committed, per second",
    "load.skipped_ratio": "operations that were due and never started, as a share of all due, 0 to 1",
    "load.busy_ratio": "throughput times mean service time over the concurrency limit: how full the pool is, 0 to 1",
}
_LATENCY = {
    "latency.log_mean": "natural log of the mean response in seconds; of statements' execution where operations "
    "are not ours",
    "latency.log_p95": "natural log of the 95th percentile of the response in seconds",
    "latency.log_p99": "natural log of the 99th percentile of the response in seconds",
    "latency.log_service_mean": "natural log of the mean service time in seconds",
    "latency.log_queueing_ratio": "natural log of mean response over mean service time",
    "latency.is_timed_by_us": "1 where every operation was timed by us, 0 where it comes from statement statistics",
    "lag.log_p99": "natural log of the 99th percentile of the load generator's own lag in seconds",
}
_TREND = {
    "trend.log_mean": "latency.log_mean minus that of the window before",
    "trend.log_throughput": "natural log of the throughput over that of the window before",
    "trend.log_offered": "natural log of the offered rate over that of the window before",
    "trend.active_sessions": "waits.all_sessions minus those of the window before",
    "previous.log_mean": "latency.log_mean of the window before",
}
_ERRORS = {
    "errors.failed_ratio": "failed operations as a share of all finished, 0 to 1",
    **{f"errors.{name}_ratio": f"failures of class {name} as a share of all finished, 0 to 1" for name in ErrorClass},
}
_WAITS = {
    "waits.all_sessions": "average active sessions, whatever they wait for",
    **{f"waits.{name}_sessions": f"average active sessions whose wait class is {name}" for name in WAIT_CLASSES},
}
_TIME = {
    "time.day_sin": "sine of the time of day in UTC, a full turn in 24 hours",
    "time.day_cos": "cosine of the time of day in UTC, a full turn in 24 hours",
    "time.window_seconds": "length of the window in seconds",
}

TELEMETRY: Mapping[str, str] = {
    "activity.connections": "client sessions, ours left out, average",
    "activity.blocked_sessions": "sessions that wait for a heavyweight lock, average",
    "activity.idle_in_transaction_sessions": "sessions that are idle in a transaction, average",
    "activity.longest_transaction_seconds": "age of the oldest transaction in seconds",
    "database.commits_per_second": "transactions committed per second",
    "database.rollbacks_per_second": "transactions rolled back per second",
    "database.read_blocks_per_second": "blocks read from outside shared buffers per second",
    "database.hit_blocks_per_second": "blocks found in shared buffers per second",
    "database.returned_tuples_per_second": "rows read by scans per second",
    "database.fetched_tuples_per_second": "rows fetched by index scans per second",
    "database.inserted_tuples_per_second": "rows inserted per second",
    "database.updated_tuples_per_second": "rows updated per second",
    "database.deleted_tuples_per_second": "rows deleted per second",
    "database.temp_bytes_per_second": "bytes of temporary files written per second",
    "database.deadlocks_per_second": "deadlocks per second",
    "database.sessions_per_second": "sessions opened per second",
    "database.backends": "sessions connected to the database",
    "tables.live_tuples": "rows alive in the user's tables, the server's estimate",
    "tables.dead_tuples": "dead rows in the user's tables, the server's estimate",
    "tables.tuples_modified_since_analyze": "rows changed since the last analyze",
    "tables.estimated_bytes": "tables, indexes and TOAST in bytes, as last counted by vacuum or analyze",
    "tables.seq_read_tuples_per_second": "rows read by sequential scans per second",
    "tables.hot_updated_tuples_per_second": "heap-only updates per second",
    "tables.autovacuums_per_second": "autovacuum runs per second",
    "wal.generated_bytes_per_second": "write-ahead log made, in bytes per second",
    "wal.full_page_images_per_second": "full page images in the write-ahead log per second",
    "wal.buffers_full_per_second": "times per second that WAL was written since its buffers were full",
    "wal.syncs_per_second": "syncs of WAL files per second",
    "checkpointer.requested_checkpoints_per_second": "checkpoints per second that were asked for, by WAL size say",
    "checkpointer.written_blocks_per_second": "blocks written by checkpoints per second",
    "checkpointer.write_seconds_per_second": "time that checkpoints spent writing, in seconds per second",
    "checkpointer.sync_seconds_per_second": "time that checkpoints spent syncing, in seconds per second",
    "background_writer.cleaned_blocks_per_second": "blocks written by the background writer per second",
    "background_writer.allocated_blocks_per_second": "buffers allocated per second",
    "background_writer.backend_written_blocks_per_second": "blocks that sessions wrote themselves per second",
    "locks.granted": "heavyweight locks held",
    "locks.waiting": "heavyweight locks waited for",
    "locks.oldest_wait_seconds": "age of the oldest wait for a heavyweight lock in seconds",
    "host.cpu_busy_seconds_per_second": "processors at work, in seconds per second",
    "host.cpu_iowait_seconds_per_second": "processors that wait for disks, in seconds per second",
    "host.cpu_steal_seconds_per_second": "processors that the hypervisor gave to others, in seconds per second",
    "host.load_average_1min": "processes that run or wait for a processor, average over a minute",
    "host.memory_available_bytes": "memory that can be had without swapping, in bytes",
    "host.disk_read_bytes_per_second": "bytes read from the disk of the data directory per second",
    "host.disk_written_bytes_per_second": "bytes written to the disk of the data directory per second",
    "host.disk_busy_seconds_per_second": "time that this disk was at work, in seconds per second",
    "host.pressure_cpu_some_seconds_per_second": "time that a process waited for a processor, in seconds per second",
    "host.pressure_io_full_seconds_per_second": "time that every process waited for a disk, in seconds per second",
    "host.pressure_memory_some_seconds_per_second": "time that a process waited for memory, in seconds per second",
    "replication.replay_lag_bytes": "write-ahead log that the slowest standby has not replayed, in bytes",
}
"""Rates and gauges of a `Window` that are taken over under their own name."""

FEATURES: Mapping[str, str] = MappingProxyType(
    {
        **LOAD_CONTEXT,
        **_LOAD,
        **_LATENCY,
        **_TREND,
        **_ERRORS,
        **_WAITS,
        **_TIME,
        **TELEMETRY,
        f"{KNOB_PREFIX}<name>": "value of the knob of this name: log2(1 + |value|) with the sign of the value for "
        "numbers in base units, 0 or 1 for bool, off and on, a fraction in between that stands for any other text",
    }
)
"""Feature name → description with its unit. ``knob.<name>`` stands for one feature for each knob."""


def describe(name: str) -> str | None:
    """Return the description of a feature, None where there is no such feature.

    Examples
    --------
    >>> describe("locks.waiting")
    'heavyweight locks waited for'
    >>> describe("knob.work_mem") is None, describe("moon.phase") is None
    (False, True)
    """
    if name.startswith(KNOB_PREFIX) and name != KNOB_PREFIX:
        return FEATURES[f"{KNOB_PREFIX}<name>"]
    return FEATURES.get(name)
