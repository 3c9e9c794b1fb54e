"""A target that needs no server, on a clock of one's own."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ml_postgres_optimization.errors import ChangeRefused
from ml_postgres_optimization.knobs.configuration import Configuration, is_of_role
from ml_postgres_optimization.knobs.knob import KnobValue, Setting
from ml_postgres_optimization.knobs.machine import Machine
from ml_postgres_optimization.target.capabilities import Capabilities
from ml_postgres_optimization.target.protocols import Condition, always
from ml_postgres_optimization.target.seen import RoleSeen
from ml_postgres_optimization.target.simulated.counters import WAL_BYTES_PER_WRITE, WRITE_RATIO, growth
from ml_postgres_optimization.target.simulated.noise import Noise, WhiteNoise
from ml_postgres_optimization.target.simulated.role_settings import SimulatedRoles
from ml_postgres_optimization.target.simulated.settings_file import SettingsFile
from ml_postgres_optimization.target.simulated.stock import VERSION_NUM
from ml_postgres_optimization.target.simulated.surface import MEMORY_BYTES, latency_seconds, starts_with
from ml_postgres_optimization.telemetry import (
    ActivitySample,
    Clock,
    MemoryReading,
    SampleBatch,
    Snapshot,
    StatementCounters,
    StatementKey,
)

CPUS = 2.0
_STEP_SECONDS = 1.0
# standard deviation of the logarithm of single latencies around the mean: p99 is 2.8 times the mean
_SPREAD = 0.5
_KINDS = ("read", "write")
_READ_KEY: StatementKey = (101, 10, 5)
_WRITE_KEY: StatementKey = (102, 10, 5)
_KEPT_STEPS = 3600


@dataclass(frozen=True, slots=True)
class _Step:
    """A stretch of time in which nothing changed."""

    ended_seconds: float
    length_seconds: float
    operations: int
    latency_seconds: float


class SimulatedTarget:
    """A server that is a formula; implements `target.protocols.Target`.

    Settings are written, reloaded and refused as PostgreSQL does it (`settings_file`). Operations arrive at a fixed
    rate, whatever they cost; their latency follows the response surface (`surface`) under the configuration in
    force, multiplied by the noise.

    Parameters
    ----------
    clock : Clock
        The only thing that makes time pass here.
    seed : int
    noise : Noise
    concurrency : int
        Connections that the load uses; may be set at any time.
    rate_per_second : float
        Operations offered.
    step_seconds : float
        Within which nothing changes; longer for simulations of days.

    Notes
    -----
    What happened is worked out when somebody asks, in steps of a second at most; `samples` gives the operations of
    the last hour at most. Not thread safe.

    Examples
    --------
    >>> from ml_postgres_optimization.telemetry import Recorder, VirtualClock
    >>> clock = VirtualClock()
    >>> target = SimulatedTarget(clock, seed=1, rate_per_second=200)
    >>> window = Recorder(target, clock, samples=target.samples).record(10, configuration_id=target.configuration.id)
    >>> window.operations_total, round(window.rates["database.commits_per_second"])
    (2000, 200)
    """

    def __init__(
        self,
        clock: Clock,
        *,
        seed: int,
        noise: Noise | None = None,
        concurrency: int = 8,
        rate_per_second: float = 500.0,
        step_seconds: float = _STEP_SECONDS,
    ) -> None:
        self._clock = clock
        self._random = np.random.default_rng(seed)
        self._noise = noise or WhiteNoise()
        self._concurrency = concurrency
        self._rate_per_second = rate_per_second
        self._step_seconds = step_seconds
        self._file = SettingsFile()
        self._roles = SimulatedRoles(self.capabilities.database)
        self._now_seconds = clock.monotonic_seconds()
        self._level = 0.0
        self._owed_operations = 0.0
        self._totals: dict[str, float] = {}
        self._steps: deque[_Step] = deque(maxlen=_KEPT_STEPS)
        self._count(_Step(self._now_seconds, 0.0, 0, 0.0))

    @property
    def capabilities(self) -> Capabilities:
        """A PostgreSQL 15 that lets us do everything."""
        return Capabilities(
            version_num=VERSION_NUM,
            version="15.18 (simulated)",
            system_identifier="simulated",
            database="simulated",
            role="simulated",
            is_superuser=True,
            is_owner=True,
            is_monitor=True,
            may_alter_system=True,
            may_reload=True,
            settings_visible=True,
        )

    @property
    def machine(self) -> Machine:
        """Eight gigabytes and two processors."""
        return Machine(MEMORY_BYTES, "assumed", cpus=CPUS, is_local=True, disk_free_bytes=100 * 1024**3)

    @property
    def configuration(self) -> Configuration:
        """The settings in force."""
        return self._file.configuration

    @property
    def concurrency(self) -> int:
        """Connections that the load uses."""
        return self._concurrency

    @concurrency.setter
    def concurrency(self, connections: int) -> None:
        """Change it from this moment on."""
        self._advance()
        self._concurrency = connections

    @property
    def rate_per_second(self) -> float:
        """Operations offered."""
        return self._rate_per_second

    @rate_per_second.setter
    def rate_per_second(self, rate_per_second: float) -> None:
        """Change it from this moment on."""
        self._advance()
        self._rate_per_second = rate_per_second

    def latency_seconds(self, configuration: Mapping[str, KnobValue], concurrency: int) -> float:
        """Return the true mean latency, without noise: what a test holds its findings against."""
        return latency_seconds({**self.configuration, **configuration}, concurrency)

    def settings(self, names: Iterable[str]) -> Mapping[str, Setting]:
        """Return what a fresh session sees; a name that there is not is absent."""
        wanted = list(names)
        return {**self._file.settings(wanted), **self._roles.settings(wanted)}

    def role(self, name: str) -> RoleSeen | None:
        """Return what a role is; None where there is none of that name."""
        return self._roles.role(name)

    def write(self, name: str, value: KnobValue, *, only_if: Condition = always) -> bool:
        """Write `value` for `name`, if `only_if` holds of the setting; return whether it was done.

        Raises
        ------
        ChangeRefused
            If there is no such setting, or the value is not one that it may have.
        """
        if not only_if(self.settings([name]).get(name)):
            return False
        (self._roles if is_of_role(name) else self._file).write(name, value)
        return True

    def restore(self, name: str, written_value: str | None, *, only_if: Condition = always) -> bool:
        """Put back what the file said, if `only_if` holds of the setting; return whether it was done.

        Raises
        ------
        ChangeRefused
            As `write`.
        """
        if not only_if(self.settings([name]).get(name)):
            return False
        (self._roles if is_of_role(name) else self._file).restore(name, written_value)
        return True

    def reload(self) -> None:
        """Make written values take effect from this moment on."""
        self._advance()
        self._file.reload()

    @property
    def can_restart(self) -> bool:
        """A formula restarts in no time."""
        return True

    def rehearse(self, values: Mapping[str, KnobValue]) -> None:
        """See that the server would start: its shared buffers have to fit into its memory.

        Raises
        ------
        ChangeRefused
            If they do not.
        """
        if not starts_with({**self.configuration, **values}):
            raise ChangeRefused("a simulated server of this size would not start", "Choose smaller shared_buffers.")

    def restart(self, rescue: Mapping[str, str | None]) -> None:
        """Make all that was written take effect, or what `rescue` says where the server does not start with it.

        Raises
        ------
        ChangeRefused
            If it had to be rescued.
        """
        self._advance()
        self._file.restart()
        if not starts_with(self.configuration):
            for name, text in rescue.items():
                self._file.restore(name, text)
            self._file.restart()
            raise ChangeRefused("a simulated server of this size did not start", "It runs again as before.")

    def snapshot(self) -> Snapshot:
        """Return the counters that the load has moved so far, and the gauges of this moment."""
        self._advance()
        gauges = {
            "database.backends": float(self._concurrency),
            "cluster.backends": float(self._concurrency),
            "cluster.max_connections": float(str(self.configuration["max_connections"])),
            "host.memory_total_bytes": float(MEMORY_BYTES),
            "host.memory_available_bytes": MEMORY_BYTES / 2,
        }
        return Snapshot(
            taken_at=self._clock.now(),
            monotonic_seconds=self._clock.monotonic_seconds(),
            values={**self._totals, **gauges},
            statements={
                _READ_KEY: self._statement(1 - WRITE_RATIO, wal_bytes=0),
                _WRITE_KEY: self._statement(WRITE_RATIO, wal_bytes=WAL_BYTES_PER_WRITE),
            },
            unseen={"io": "a simulated server has none"},
        )

    def activity(self) -> ActivitySample:
        """Return as many sessions at work as Little's law wants, those beyond the processors waiting."""
        latency = latency_seconds(self.configuration, self._concurrency) * math.exp(self._level)
        active = min(self._concurrency, round(self._rate_per_second * latency))
        working = min(active, int(CPUS))
        waits = {"CPU": working, "LWLock": active - working}
        return ActivitySample(
            {wait: sessions for wait, sessions in waits.items() if sessions}, self._concurrency, 0, 0, 0.0
        )

    def memory(self) -> MemoryReading:
        """Return the half of the memory that its buffers and the rest leave."""
        return MemoryReading(MEMORY_BYTES / 2, shared_bytes=0.0)

    def samples(self) -> Sequence[SampleBatch]:
        """Return the operations that ended since this was last asked: the sample source of a `Recorder`."""
        self._advance()
        batches = [self._batch(step) for step in self._steps if step.operations]
        self._steps.clear()
        return batches

    def _advance(self) -> None:
        """Work out what happened until now, under the configuration and concurrency in force until now."""
        until = self._clock.monotonic_seconds()
        mean_seconds = latency_seconds(self.configuration, self._concurrency)
        while (length := min(self._step_seconds, until - self._now_seconds)) > 0:
            self._now_seconds += length
            self._level = self._noise.after(self._level, length, self._random)
            self._owed_operations += self._rate_per_second * length
            operations = int(self._owed_operations)
            self._owed_operations -= operations
            self._count(_Step(self._now_seconds, length, operations, mean_seconds * math.exp(self._level)))

    def _count(self, step: _Step) -> None:
        self._steps.append(step)
        busy_seconds = step.operations * step.latency_seconds
        grown = growth(self.configuration, step.operations)
        grown["database.active_seconds_total"] = busy_seconds
        grown["host.cpu_busy_seconds_total"] = min(busy_seconds, CPUS * step.length_seconds)
        for name, amount in grown.items():
            self._totals[name] = self._totals.get(name, 0.0) + amount

    def _statement(self, ratio: float, *, wal_bytes: int) -> StatementCounters:
        calls = int(self._totals["database.commits_total"] * ratio)
        return StatementCounters(
            calls_total=calls,
            execution_seconds_total=self._totals["database.active_seconds_total"] * ratio,
            rows_total=calls,
            shared_blocks_read_total=int(self._totals["database.read_blocks_total"] * ratio),
            shared_blocks_hit_total=int(self._totals["database.hit_blocks_total"] * ratio),
            temp_blocks_written_total=int(self._totals["database.temp_bytes_total"] * ratio / 8192),
            wal_bytes_total=float(calls * wal_bytes),
        )

    def _batch(self, step: _Step) -> SampleBatch:
        """Draw single operations: lognormal around the step's mean, their ends spread evenly over the step."""
        drawn = self._random.lognormal(-(_SPREAD**2) / 2, _SPREAD, step.operations)
        end = np.sort(step.ended_seconds - step.length_seconds * self._random.random(step.operations))
        start = end - drawn * step.latency_seconds
        return SampleBatch(
            kinds=_KINDS,
            kind_index=(self._random.random(step.operations) < WRITE_RATIO).astype(np.uint8),
            intended_start_seconds=start,
            start_seconds=start,
            end_seconds=end,
            sqlstate=np.zeros(step.operations, dtype="S5"),
            lag_seconds=np.zeros(step.operations),
        )
