"""Runs of made-up intervals whose law is known: a daily cycle, noise with a memory, drift, gaps and events."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np

from ml_postgres_optimization.soak.figures.outline import RunOutline
from ml_postgres_optimization.soak.interval import Event, EventKind, Interval, IntervalState
from ml_postgres_optimization.telemetry import Histogram, OperationWindow, Window

START = datetime(2026, 3, 2, 6, tzinfo=UTC)
KINDS = {"read": (0.45, 0.7), "write": (0.30, 1.2), "update": (0.15, 1.3), "transaction": (0.10, 2.1)}
MEGABYTE = 1e6


def autocorrelated(rng: np.random.Generator, steps: int, correlation: float, *, heavy: bool = False) -> np.ndarray:
    """Return AR(1) noise of unit deviation; heavy-tailed with Student's t of 3 degrees as its innovations."""
    shocks = rng.standard_t(3, steps + 50) / 3**0.5 if heavy else rng.standard_normal(steps + 50)
    noise = np.zeros(steps + 50)
    for step in range(1, len(noise)):
        noise[step] = correlation * noise[step - 1] + (1 - correlation**2) ** 0.5 * shocks[step]
    return noise[50:]


@dataclass(frozen=True)
class SimulatedRun:
    """The law of a run.

    `drift` is the growth of the response over the whole run; `daily` the depth of the load's cycle, 0 to 1; `leak`
    the client's memory in bytes an hour; `gaps` states by the hours (from, until) in which they hold.
    """

    hours: float = 72.0
    interval_seconds: float = 60.0
    per_second: float = 30.0
    mean_seconds: float = 0.002
    drift: float = 0.0
    daily: float = 0.5
    noise: float = 0.05
    correlation: float = 0.5
    failed_ratio: float = 0.0004
    leak: float = 0.0
    gaps: Mapping[tuple[float, float], IntervalState] = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    seed: int = 1

    @property
    def description(self) -> RunOutline:
        """What a journal would say of it."""
        return RunOutline(
            run="20260302T060000-5041",
            started_at=START,
            interval_seconds=self.interval_seconds,
            planned_seconds=self.hours * 3600,
            server="PostgreSQL 17.2, embedded",
            load=f"level HIGH, soak mix, daily cycle of ±{self.daily:.0%}, {self.per_second:g}/s on average",
            facts={"Seed": str(self.seed), "Scale": "1 (about 100 MB)", "Optimiser": "beside the load"},
        )

    def intervals(self) -> Iterator[Interval]:
        """Make its intervals, one after the other."""
        rng = np.random.default_rng(self.seed)
        total = round(self.hours * 3600 / self.interval_seconds)
        noise = np.exp(self.noise * autocorrelated(rng, total, self.correlation))
        for number in range(total):
            share, hour = number / total, number * self.interval_seconds / 3600
            load = 1 + self.daily * np.sin(2 * np.pi * (hour - 4) / 24)
            state = self._state(hour)
            window = None
            if state in (IntervalState.MEASURED, IntervalState.DEGRADED):
                mean = self.mean_seconds * (1 + self.drift * share) * (0.6 + 0.4 * load) * noise[number]
                window = self._window(rng, number, mean, load, share)
            yield Interval(
                number=number,
                epoch=1,
                state=state,
                started_at=self.at(number),
                ended_at=self.at(number + 1),
                window=window,
                resources={} if window is None else self._resources(rng, hour, load),
                events=tuple(event for event in self.events if self.at(number) <= event.at < self.at(number + 1)),
            )

    def at(self, number: float) -> datetime:
        """Return when an interval begins."""
        return START + timedelta(seconds=number * self.interval_seconds)

    def _state(self, hour: float) -> IntervalState:
        states = (state for (begin, end), state in self.gaps.items() if begin <= hour < end)
        return next(states, IntervalState.MEASURED)

    def _resources(self, rng: np.random.Generator, hour: float, load: float) -> dict[str, float]:
        return {
            "client.rss_bytes": 92 * MEGABYTE + self.leak * hour + 0.4 * MEGABYTE * rng.standard_normal(),
            "client.cpu_ratio": 0.14 * load + 0.01 * rng.random(),
            "client.open_files": 74.0,
            "load_tables.total_bytes": 131 * MEGABYTE * (1 + 0.05 * hour / self.hours),
            "load_tables.live_tuples": 1e6,
            "runner.garbage_seconds": 0.0004 + 0.0001 * rng.random(),
        }

    def _window(self, rng: np.random.Generator, number: int, mean: float, load: float, share: float) -> Window:
        due = int(rng.poisson(self.per_second * load * self.interval_seconds))
        failed = int(rng.binomial(due, self.failed_ratio))
        deadlocks = int(rng.binomial(failed, 0.2))
        operations = {}
        for kind, (part, weight) in KINDS.items():
            times = mean * weight * rng.lognormal(-0.32, 0.8, max(1, int(due * part)))
            operations[kind] = OperationWindow(Histogram.of(times), Histogram.of(0.8 * times))
        read = operations["read"]
        operations["read"] = OperationWindow(read.response, read.service, failed)
        answered = sum(part.response.total for part in operations.values())
        return Window(
            started_at=self.at(number),
            ended_at=self.at(number + 1),
            configuration_id="stock" if share < 0.35 else "tuned",
            rates={
                "load.due_per_second": answered / self.interval_seconds,
                "wal.generated_bytes_per_second": 2.1e6 * load * (1 + 0.1 * rng.random()),
                "checkpointer.written_blocks_per_second": 60 * load * (1 + rng.random()),
                "host.cpu_busy_seconds_per_second": 0.5 * load + 0.05 * rng.random(),
                "host.disk_written_bytes_per_second": 3.2e6 * load * (1 + 0.2 * rng.random()),
            },
            gauges={
                "host.cgroup_memory_bytes": 410 * MEGABYTE + 6 * MEGABYTE * rng.random(),
                "host.memory_available_bytes": 5.1e9 + 5e7 * rng.random(),
                "tables.dead_tuples": 2e4 * (1 + rng.random()),
                "activity.connections": 86.0,
                "disk.log_free_bytes": 4e10,
            },
            waits={
                "CPU": 0.5 * load,
                "IO": 0.22 * load * (1 + 0.3 * rng.random()),
                "LWLock": 0.06 * load,
                "Lock": 0.05 * load * rng.random(),
            },
            operations=operations,
            lag=Histogram.of(np.full(20, 1e-4)),
            errors={
                name: count for name, count in {"40001": failed - deadlocks, "40P01": deadlocks}.items() if count
            },
        )


def eventful(**changes: object) -> SimulatedRun:
    """Return three days in which everything happens."""
    hour = timedelta(hours=1)
    events = [
        *(Event(EventKind.CHECKPOINT, "Checkpoint by time, 4,310 buffers.", START + at * hour)
          for at in np.arange(0.5, 72, 0.5)),
        Event(EventKind.CONFIGURATION, "work_mem 4 MB → 16 MB: promoted after 9 pairs.", START + 25.2 * hour),
        Event(EventKind.FAULT, "All connections terminated.", START + 12 * hour, START + 12.2 * hour),
        Event(EventKind.FAULT, "Server crashed (SIGKILL) and recovered.", START + 38.4 * hour, START + 38.6 * hour),
        Event(EventKind.SERVER, "Server away, back after 12 min.", START + 38.4 * hour, START + 38.6 * hour),
        Event(EventKind.RUNNER, "The runner was killed and resumed as epoch 2.", START + 51.5 * hour),
        Event(EventKind.CLOCK, "The wall clock jumped by 3.2 s.", START + 60 * hour),
    ]  # fmt: skip
    gaps = {
        (38.4, 38.6): IntervalState.SERVER_DOWN,
        (50.0, 51.5): IntervalState.CLIENT_DOWN,
        (51.5, 51.51): IntervalState.LOST,
        (60.0, 60.1): IntervalState.DEGRADED,
    }
    return SimulatedRun(**({"gaps": gaps, "events": tuple(events)} | changes))
