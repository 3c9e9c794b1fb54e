"""How much memory the processes of a server use, from ``/proc``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

# The kernel walks all pages of a process for its share: milliseconds for each gigabyte of buffers it has touched.
MOST_PROCESSES = 128
MOST_SECONDS = 0.05
# What costs so much is read at each tenth look only.
_SHARE_EACH = 10


class ServerMemory:
    """Read the memory of a postmaster and all of its children.

    Parameters
    ----------
    postmaster_pid : int
        Of a server on this machine.
    proc : Path

    Notes
    -----
    ``status`` of a process may be read by anybody; 100 processes take some 10 ms. The proportional share (PSS) takes
    the same account, or root. It is read at each tenth look, left out where there are more than 128 processes, and
    for good once a look at it took more than 50 ms of processor time. Call this once a minute, not once a second.

    References
    ----------
    proc(5): ``RssAnon`` and ``RssShmem`` of status, ``Pss`` of smaps_rollup.
    """

    def __init__(self, postmaster_pid: int, proc: Path = Path("/proc")) -> None:
        self._postmaster_pid = postmaster_pid
        self._proc = proc
        self._no_share: str | None = None
        self._looks = 0

    def read(self) -> tuple[dict[str, float], dict[str, str]]:
        """Return ``server.…`` figures, and what could not be read with the reason."""
        try:
            pids = [*self._pids()]
        except psutil.AccessDenied:
            return {}, {"server": "its processes may not be listed: /proc is mounted with hidepid"}
        told = [fields for fields in map(self._status, pids) if "RssAnon" in fields]
        if not told:
            return {}, {"server": "none of the server's processes can be seen"}
        private = [fields["RssAnon"] for fields in told]
        values = {
            "server.processes": float(len(told)),
            "server.private_bytes": sum(private),
            "server.largest_private_bytes": max(private),
            "server.shared_bytes": max(fields.get("RssShmem", 0.0) for fields in told),
        }
        self._looks += 1
        if self._looks % _SHARE_EACH != 1:
            return values, {}
        share = self._share(pids)
        if isinstance(share, str):
            return values, {"server.pss_bytes": share}
        return values | {"server.pss_bytes": share}, {}

    def _pids(self) -> Iterator[int]:
        yield self._postmaster_pid
        with suppress(psutil.NoSuchProcess):
            yield from (child.pid for child in psutil.Process(self._postmaster_pid).children(recursive=True))

    def _status(self, pid: int) -> dict[str, float]:
        return _kilobytes(self._proc / str(pid) / "status")

    def _share(self, pids: list[int]) -> float | str:
        """Return the sum of all proportional shares, or why there is none."""
        if self._no_share is not None:
            return self._no_share
        if len(pids) > MOST_PROCESSES:
            return f"there are {len(pids)} processes, and {MOST_PROCESSES} at most are looked at so closely"
        began, shares = time.thread_time(), list[float]()
        for pid in pids:
            try:
                fields = _kilobytes(self._proc / str(pid) / "smaps_rollup")
            except PermissionError:
                self._no_share = "it takes the server's account, or root, to read smaps_rollup"
                return self._no_share
            except OSError:  # it has ended meanwhile
                continue
            shares += [fields["Pss"]] if "Pss" in fields else []
        if (seconds := time.thread_time() - began) > MOST_SECONDS:
            self._no_share = (
                f"reading it took {seconds * 1000:.0f} ms of processor time, {MOST_SECONDS * 1000:g} at most"
            )
        return sum(shares) if shares else "this kernel has no smaps_rollup, or it tells no Pss"


def _kilobytes(path: Path) -> dict[str, float]:
    """Return the fields in kB of a file of ``/proc``, in bytes; ``status`` of a process that is gone has none."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {line[0].removesuffix(":"): float(line[1]) * 1024 for line in lines if len(line) == 3 and line[2] == "kB"}
