"""How much memory, how many processors and how much disk the server may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ml_postgres_optimization.knobs.machine import Machine
from ml_postgres_optimization.target.host.cgroup import ControlGroup
from ml_postgres_optimization.target.host.disk import device_folder, free_bytes, is_rotational

# "a reasonable starting value for shared_buffers is 25% of the memory in your system":
# https://www.postgresql.org/docs/current/runtime-config-resource.html
_ASSUMED_MEMORY_PER_SHARED_BUFFERS = 4
# what initdb writes into postgresql.conf
_STOCK_SHARED_BUFFERS_BYTES = 128 * 1024**2
# vm.overcommit_memory: https://docs.kernel.org/mm/overcommit-accounting.html
_NEVER_OVERCOMMIT = "2"


def read_machine(
    *,
    is_local: bool,
    memory_override_bytes: int | None = None,
    shared_buffers_bytes: int = _STOCK_SHARED_BUFFERS_BYTES,
    data_directory: Path | None = None,
    server_pid: int | None = None,
    proc: Path = Path("/proc"),
    sys: Path = Path("/sys"),
) -> Machine:
    """Return what the server may use.

    Parameters
    ----------
    is_local : bool
        Whether the server runs on this machine (`postmaster_pid_if_local`). If not, its processors cannot be seen
        either: 1 is all that is certain.
    memory_override_bytes : int, optional
        What the user says. A local server never gets more than the machine has.
    shared_buffers_bytes : int
        The server's own setting; four times as much memory is assumed for a remote server without an override.
    data_directory : Path, optional
        For the disk; it need not be readable, only its path.
    server_pid : int, optional
        The postmaster, whose control group and processors count; without it those of this process do.
    proc, sys : Path
        Where those file systems are, or a frozen copy of them.

    Raises
    ------
    OSError, LookupError
        If ``/proc/meminfo`` of a local server's machine cannot be read.
    """
    if not is_local:
        return _remote_machine(memory_override_bytes, shared_buffers_bytes)
    group = ControlGroup(proc, sys, server_pid)
    limit_bytes, source = min(_memory_limits(group, memory_override_bytes))
    disk_free_bytes, rotational = _disk(data_directory, proc, sys)
    return Machine(
        memory_limit_bytes=limit_bytes,
        memory_limit_source=source,
        cpus=min([cpus for cpus in (group.cpus(), _allowed_cpus(proc, server_pid)) if cpus]),
        is_local=True,
        disk_free_bytes=disk_free_bytes,
        rotational_disk=rotational,
    )


def read_meminfo(proc: Path) -> dict[str, int]:
    """Return ``/proc/meminfo`` in bytes; lines that are no amount in kB are left out.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    fields = (line.split() for line in (proc / "meminfo").read_text().splitlines())
    return {
        field[0].removesuffix(":"): int(field[1]) * 1024
        for field in fields
        if len(field) == 3 and field[2] == "kB" and field[1].isdecimal()
    }


def _remote_machine(memory_override_bytes: int | None, shared_buffers_bytes: int) -> Machine:
    if memory_override_bytes is not None:
        return Machine(memory_override_bytes, "given", cpus=1.0, is_local=False)
    assumed_bytes = _ASSUMED_MEMORY_PER_SHARED_BUFFERS * shared_buffers_bytes
    return Machine(assumed_bytes, "assumed", cpus=1.0, is_local=False)


def _memory_limits(group: ControlGroup, memory_override_bytes: int | None) -> Iterator[tuple[int, str]]:
    memory_bytes = read_meminfo(group.proc)
    yield memory_bytes["MemTotal"], "RAM"
    in_group = group.memory_limit_bytes()
    if in_group is not None:
        yield in_group
    if _overcommit_mode(group.proc) == _NEVER_OVERCOMMIT:
        yield memory_bytes["CommitLimit"], "CommitLimit"
    if memory_override_bytes is not None:
        yield memory_override_bytes, "given"


def _overcommit_mode(proc: Path) -> str:
    path = proc / "sys/vm/overcommit_memory"
    return path.read_text().strip() if path.exists() else ""


def _allowed_cpus(proc: Path, server_pid: int | None) -> float:
    """Count the processors that the process may run on (``Cpus_allowed_list: 0-3,8``), cpusets included."""
    status = proc / str(server_pid or "self") / "status"
    for line in status.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "Cpus_allowed_list":
            return float(sum(_length(part) for part in value.strip().split(",")))
    return float(os.cpu_count() or 1)


def _length(cpu_range: str) -> int:
    first, _, last = cpu_range.partition("-")
    return int(last or first) - int(first) + 1


def _disk(data_directory: Path | None, proc: Path, sys: Path) -> tuple[int | None, bool | None]:
    if data_directory is None:
        return None, None
    device = device_folder(data_directory, proc=proc, sys=sys)
    return free_bytes(data_directory), None if device is None else is_rotational(device)
