"""Counters and gauges of the machine, from ``/proc`` and ``/sys``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ml_postgres_optimization.target.host.cgroup import ControlGroup
from ml_postgres_optimization.target.host.disk import device_counters, device_folder, free_bytes
from ml_postgres_optimization.target.host.machine import read_meminfo
from ml_postgres_optimization.telemetry import MemoryReading

_RESOURCES = ("cpu", "io", "memory")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class HostReading:
    """What could be read, and what could not.

    Parameters
    ----------
    values : mapping of str to float
        Named as in `telemetry.Snapshot`: ``host.cpu_busy_seconds_total`` and the like.
    unseen : mapping of str to str
        ``host.<part>`` → why it could not be read.
    """

    values: Mapping[str, float]
    unseen: Mapping[str, str]


class HostProbe:
    """Read the machine that the server runs on.

    Parameters
    ----------
    proc, sys : Path
        Where those file systems are, or a frozen copy of them.
    data_directory : Path or None
        The server's; without it the disk is unseen.
    log_directory : Path or None
        Where our own logs go; without it their free space is unseen.
    server_pid : int or None
        The postmaster, whose control group counts; None: the group of this process.

    Notes
    -----
    Takes 0.5 ms. Reads files only.

    References
    ----------
    https://docs.kernel.org/filesystems/proc.html, https://docs.kernel.org/accounting/psi.html
    """

    def __init__(
        self,
        proc: Path = Path("/proc"),
        sys: Path = Path("/sys"),
        data_directory: Path | None = None,
        *,
        log_directory: Path | None = None,
        server_pid: int | None = None,
    ) -> None:
        self._proc = proc
        self._sys = sys
        self._data_directory = data_directory
        self._log_directory = log_directory
        self._group = ControlGroup(proc, sys, server_pid)
        self._parts: Mapping[str, Callable[[], dict[str, float]]] = {
            "cpu": self._cpu,
            "load": self._load,
            "memory": self._memory,
            "disk": self._disk,
            "disk_free": lambda: {"disk_free_bytes": _free_bytes(self._data_directory, "data directory")},
            "log_free": lambda: {"log_free_bytes": _free_bytes(self._log_directory, "log folder")},
            "pressure": self._pressure,
            "cgroup_memory": self._cgroup_memory,
            "cgroup_pressure": self._cgroup_pressure,
            "oom": self._oom,
        }

    def read(self) -> HostReading:
        """Read every part; one that is missing or malformed is told by `HostReading.unseen`."""
        values: dict[str, float] = {}
        unseen: dict[str, str] = {}
        for part, read in self._parts.items():
            try:
                values.update((f"host.{name}", value) for name, value in read().items())
            except (OSError, ValueError, LookupError) as error:
                unseen[f"host.{part}"] = _reason(error)
        return HostReading(values, unseen)

    def values(self) -> dict[str, float]:
        """Return what could be read, without what could not."""
        return dict(self.read().values)

    def memory(self) -> MemoryReading | None:
        """Return how much memory is left; None where ``/proc/meminfo`` does not say it. Takes 0.1 ms."""
        try:
            memory_bytes = read_meminfo(self._proc)
            left_bytes, shared_bytes = memory_bytes["MemAvailable"], memory_bytes["Shmem"]
        except (OSError, LookupError):
            return None
        in_group = self._group.memory_left_bytes()
        return MemoryReading(left_bytes if in_group is None else min(left_bytes, in_group), shared_bytes)

    def _cpu(self) -> dict[str, float]:
        label, *fields = (self._proc / "stat").read_text().split("\n", 1)[0].split()
        if label != "cpu":
            raise ValueError(f"/proc/stat begins with {label!r}, not with 'cpu'")
        user, nice, system, _idle, iowait, irq, softirq, steal = (
            int(field) / _TICKS_PER_SECOND for field in fields[:8]
        )
        return {
            "cpu_busy_seconds_total": user + nice + system + irq + softirq,
            "cpu_iowait_seconds_total": iowait,
            "cpu_steal_seconds_total": steal,
        }

    def _load(self) -> dict[str, float]:
        return {"load_average_1min": float((self._proc / "loadavg").read_text().split()[0])}

    def _memory(self) -> dict[str, float]:
        memory_bytes = read_meminfo(self._proc)
        return {
            "memory_total_bytes": float(memory_bytes["MemTotal"]),
            "memory_available_bytes": float(memory_bytes["MemAvailable"]),
        }

    def _disk(self) -> dict[str, float]:
        if self._data_directory is None:
            raise LookupError("the data directory is not known")
        device = device_folder(self._data_directory, proc=self._proc, sys=self._sys)
        if device is None:
            raise LookupError(f"no block device is known under {self._data_directory}")
        return device_counters(device)

    def _pressure(self) -> dict[str, float]:
        values: dict[str, float] = {}
        for resource in _RESOURCES:
            text = (self._proc / "pressure" / resource).read_text()
            values.update((f"pressure_{resource}_{share}", seconds) for share, seconds in _stalled(text))
        return values

    def _cgroup_pressure(self) -> dict[str, float]:
        texts = self._group.pressure()
        if texts is None:
            raise LookupError("the control group of the server counts none (version 2 does)")
        return {
            f"cgroup_pressure_{resource}_{share}": seconds
            for resource, text in zip(_RESOURCES, texts, strict=True)
            for share, seconds in _stalled(text)
        }

    def _oom(self) -> dict[str, float]:
        counts = dict(line.split(" ", 1) for line in (self._proc / "vmstat").read_text().splitlines())
        in_group = self._group.oom_kills()
        values = {"oom_kills_total": float(counts["oom_kill"])}
        return values if in_group is None else values | {"cgroup_oom_kills_total": float(in_group)}

    def _cgroup_memory(self) -> dict[str, float]:
        used = self._group.memory_bytes()
        if used is None:
            raise LookupError("no control group of the server can be seen")
        return {"cgroup_memory_bytes": float(used)}


def _stalled(text: str) -> Iterator[tuple[str, float]]:
    """Yield ``some_seconds_total`` and ``full_seconds_total`` of a pressure file."""
    for line in text.splitlines():
        share, *fields = line.split()
        total_microseconds = int(dict(field.split("=", 1) for field in fields)["total"])
        yield f"{share}_seconds_total", total_microseconds / 1e6


def _free_bytes(folder: Path | None, meaning: str) -> float:
    if folder is None:
        raise LookupError(f"the {meaning} is not known")
    return float(free_bytes(folder))


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, KeyError):
        return f"{error.args[0]} is missing"
    return str(error)
