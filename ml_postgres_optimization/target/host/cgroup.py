"""What control groups, version 1 and 2, let a process use.

A process is limited by its own group and by every group above it. Inside a container the path in
``/proc/<pid>/cgroup`` may be one of the host that ``/sys/fs/cgroup`` does not show; the mount's root is then the
container's own group. So every level that can be seen counts, the root included.

References
----------
https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files, ``memory.max`` and ``cpu.max``;
https://docs.kernel.org/admin-guide/cgroup-v1/memory.html, ``memory.limit_in_bytes``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True, slots=True)
class ControlGroup:
    """The groups of one process.

    Parameters
    ----------
    proc, sys : Path
        ``/proc`` and ``/sys``, or a frozen copy of them.
    pid : int or None
        None: this process.
    """

    proc: Path
    sys: Path
    pid: int | None = None

    def memory_limit_bytes(self) -> tuple[int, str] | None:
        """Return the lowest limit and which version set it, ``cgroup v2`` or ``cgroup v1``; None without a limit."""
        limits = [
            *((limit, "cgroup v2") for limit in _numbers(self._levels_v2(), "memory.max")),
            *((limit, "cgroup v1") for limit in _numbers(self._levels_v1("memory"), "memory.limit_in_bytes")),
        ]
        return min(limits, default=None)

    def memory_bytes(self) -> int | None:
        """Return what the process's own group uses, page cache included; None where it cannot be seen."""
        used = [
            *_numbers(self._levels_v2(), "memory.current"),
            *_numbers(self._levels_v1("memory"), "memory.usage_in_bytes"),
        ]
        return used[0] if used else None

    def oom_kills(self) -> int | None:
        """Return how many processes of the own group the kernel has killed for want of memory; None where unseen."""
        texts = [
            *(_text(level / "memory.events") for level in self._levels_v2()[:1]),
            *(_text(level / "memory.oom_control") for level in self._levels_v1("memory")[:1]),
        ]
        counts = (dict(line.split(" ", 1) for line in text.splitlines() if " " in line) for text in texts)
        found = [count["oom_kill"] for count in counts if count.get("oom_kill", "").isdecimal()]
        return int(found[0]) if found else None

    def pressure(self) -> tuple[str, str, str] | None:
        """Return what the own group, of version 2, tells of stalls on CPU, I/O and memory; None where it does not."""
        for level in self._levels_v2()[:1]:
            cpu, io, memory = (_text(level / f"{resource}.pressure") for resource in ("cpu", "io", "memory"))
            if cpu and io and memory:
                return cpu, io, memory
        return None

    def memory_left_bytes(self) -> int | None:
        """Return what the tightest group with a limit may still take, page cache not counted; None without one."""
        left = [
            *(_left(level, "memory.max", "memory.current", "") for level in self._levels_v2()),
            *(
                _left(level, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
                for level in self._levels_v1("memory")
            ),
        ]
        return min((left_bytes for left_bytes in left if left_bytes is not None), default=None)

    def cpus(self) -> float | None:
        """Return the lowest quota in processors; None without one."""
        quotas = [*self._quotas_v2(), *self._quotas_v1()]
        return min(quotas, default=None)

    def _quotas_v2(self) -> Iterator[float]:
        for level in self._levels_v2():
            fields = _text(level / "cpu.max").split()
            if len(fields) == 2 and all(field.isdecimal() for field in fields) and int(fields[1]):
                yield int(fields[0]) / int(fields[1])

    def _quotas_v1(self) -> Iterator[float]:
        for level in self._levels_v1("cpu"):
            quota, period = _text(level / "cpu.cfs_quota_us"), _text(level / "cpu.cfs_period_us")
            if quota.isdecimal() and period.isdecimal() and int(period):
                yield int(quota) / int(period)

    def _levels_v2(self) -> list[Path]:
        root = self.sys / "fs/cgroup"
        return self._levels(root / "unified" if (root / "unified").is_dir() else root, "")

    def _levels_v1(self, controller: str) -> list[Path]:
        return self._levels(self.sys / "fs/cgroup" / controller, controller)

    def _levels(self, root: Path, controller: str) -> list[Path]:
        """Return the folders that can be seen, from the process's own group up to the root."""
        for line in _text(self.proc / str(self.pid or "self") / "cgroup").splitlines():
            _, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            if controller in controllers.split(","):
                inside = PurePosixPath(path.lstrip("/"))
                return [level for level in (root / inside, *(root / up for up in inside.parents)) if level.is_dir()]
        return []


def _text(path: Path) -> str:
    """Return the stripped text of a file; empty where it is missing or unreadable, as on another kernel."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _left(level: Path, limit_name: str, used_name: str, prefix: str) -> int | None:
    """Return the limit less what is used and cannot be given up; `prefix` is that of sums over groups below."""
    limit, used = _text(level / limit_name), _text(level / used_name)
    if not (limit.isdecimal() and used.isdecimal()):
        return None
    counts = dict(line.split(" ", 1) for line in _text(level / "memory.stat").splitlines() if " " in line)
    cached = (counts.get(prefix + name, "") for name in ("active_file", "inactive_file"))
    return int(limit) - int(used) + sum(int(text) for text in cached if text.isdecimal())


def _numbers(levels: list[Path], name: str) -> list[int]:
    """Return the numbers that the files called `name` hold; ``max`` and what is malformed set no limit."""
    return [int(text) for text in (_text(level / name) for level in levels) if text.isdecimal()]
