"""Which boot of the machine this is."""

from __future__ import annotations

from pathlib import Path


def boot_name(proc: Path = Path("/proc")) -> str:
    """Return what the kernel calls this boot, by which a reboot is known; empty where it does not say.

    References
    ----------
    https://docs.kernel.org/admin-guide/sysctl/kernel.html#random
    """
    try:
        return (proc / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
