"""The machine that the server runs on, as far as rules and guards need to know it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Machine:
    """What the server may use.

    Parameters
    ----------
    memory_limit_bytes : int
        The smallest of RAM, the cgroup's limit and, with strict overcommit, ``CommitLimit``.
    memory_limit_source : str
        Which of them it was: ``RAM``, ``cgroup v2``, ``cgroup v1``, ``CommitLimit``, ``given`` (by the user) or
        ``assumed``.
    cpus : float
        Processors that may be used; a fraction where a cgroup quota says so.
    is_local : bool
        Whether the server runs where we can see its memory and disk; else these figures are the user's or a guess.
    disk_free_bytes : int or None
        On the file system of the data directory (WAL included); None when it cannot be seen.
    rotational_disk : bool or None
    """

    memory_limit_bytes: int
    memory_limit_source: str
    cpus: float
    is_local: bool
    disk_free_bytes: int | None = None
    rotational_disk: bool | None = None
