"""Samples, snapshots and windows: what a server did, as values."""

from ml_postgres_optimization.telemetry.clock import BootClock, Clock, SystemClock, VirtualClock
from ml_postgres_optimization.telemetry.histogram import Histogram
from ml_postgres_optimization.telemetry.recorder import Recorder
from ml_postgres_optimization.telemetry.sample import LatencySample, SampleBatch
from ml_postgres_optimization.telemetry.snapshot import (
    ActivitySample,
    Collector,
    MemoryReading,
    Snapshot,
    StatementCounters,
    StatementKey,
)
from ml_postgres_optimization.telemetry.store import MemoryStore, WindowStore
from ml_postgres_optimization.telemetry.window import OperationWindow, Window, between, merge

__all__ = [
    "ActivitySample",
    "BootClock",
    "Clock",
    "Collector",
    "Histogram",
    "LatencySample",
    "MemoryReading",
    "MemoryStore",
    "OperationWindow",
    "Recorder",
    "SampleBatch",
    "Snapshot",
    "StatementCounters",
    "StatementKey",
    "SystemClock",
    "VirtualClock",
    "Window",
    "WindowStore",
    "between",
    "merge",
]
