"""The block device under a folder.

References
----------
https://docs.kernel.org/block/stat.html: sectors of 512 bytes, times in milliseconds.
"""

from __future__ import annotations

import os
from pathlib import Path

_SECTOR_BYTES = 512


def device_folder(folder: Path, *, proc: Path, sys: Path) -> Path | None:
    """Return ``/sys/dev/block/<major>:<minor>`` of the device that holds `folder`; None where there is none.

    A file system without a device number of its own (btrfs, overlay) is looked up in the table of mounts.
    """
    device = folder.stat().st_dev
    for number in (device, _mounted_device(device, proc)):
        if number is not None:
            candidate = sys / "dev/block" / f"{os.major(number)}:{os.minor(number)}"
            if (candidate / "stat").exists():
                return candidate
    return None


def _mounted_device(device: int, proc: Path) -> int | None:
    """Return the device that is the source of the mount with number `device`, from ``/proc/self/mountinfo``."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in (proc / "self/mountinfo").read_text().splitlines():
        mount, _, file_system = line.partition(" - ")
        source = Path(file_system.split()[1])
        if mount.split()[2] == wanted and source.is_absolute() and source.is_block_device():
            return source.stat().st_rdev
    return None


def device_counters(device: Path) -> dict[str, float]:
    """Return what was read and written, and how long the device was busy.

    Raises
    ------
    OSError, ValueError, IndexError
        If the device's ``stat`` is not there or not as documented.
    """
    fields = [int(field) for field in (device / "stat").read_text().split()]
    return {
        "disk_read_bytes_total": float(fields[2] * _SECTOR_BYTES),
        "disk_written_bytes_total": float(fields[6] * _SECTOR_BYTES),
        "disk_busy_seconds_total": fields[9] / 1000,
    }


def is_rotational(device: Path) -> bool | None:
    """Tell whether the device, or the disk that a partition belongs to, spins; None where it is not said."""
    for queue in (device / "queue", device.resolve().parent / "queue"):
        if (queue / "rotational").exists():
            return (queue / "rotational").read_text().strip() == "1"
    return None


def free_bytes(folder: Path) -> int:
    """Return what an unprivileged process may still write to the file system of `folder`.

    Raises
    ------
    OSError
        If the folder is not there.
    """
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize
