"""The server's processes: started, found, stopped, and cleaned up after a crash."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from ml_postgres_optimization.errors import EmbeddedServerFailed
from ml_postgres_optimization.target.embedded.account import Account
from ml_postgres_optimization.target.embedded.folder import Folder

StopMode = Literal["smart", "fast", "immediate"]
SIGNALS: dict[StopMode, signal.Signals] = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}
"""https://www.postgresql.org/docs/current/server-shutdown.html"""

SOCKET_PARENT = Path("/tmp")  # noqa: S108 - a socket's path may have 107 bytes only, TMPDIR can be longer
SOCKET_PREFIX = "genesis-pg-"
STOP_TIMEOUT_SECONDS = 60.0
_AGAIN_SECONDS = 1.0
ORPHAN_TIMEOUT_SECONDS = 5.0
POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class PidFile:
    """What ``postmaster.pid`` says.

    Parameters
    ----------
    pid : int
        The process that wrote it, which may be long dead and its number another's.
    port : int
        The port, also part of the socket's name.
    socket_directory : Path
        The folder of the Unix socket.
    status : str
        ``starting``, ``ready``, ``stopping`` or ``standby``.

    References
    ----------
    PostgreSQL, src/include/utils/pidfile.h
    """

    pid: int
    port: int
    socket_directory: Path
    status: str


def start_postmaster(
    command: Sequence[str], folder: Folder, account: Account, timeout_seconds: float
) -> psutil.Popen:
    """Start a server and return it when it accepts connections.

    Raises
    ------
    EmbeddedServerFailed
        If it ends, or takes longer than `timeout_seconds`; it is gone then. The log's last lines say why.
    """
    log = folder.rotate_log()
    try:
        process = psutil.Popen(command, stdout=log, stderr=log, **account.process_arguments())
    finally:
        os.close(log)
    try:
        complaint = _wait_until_ready(process, folder.data_directory, timeout_seconds)
    except BaseException:
        stop_postmaster(process, "immediate")
        raise
    if complaint:
        stop_postmaster(process, "immediate")
        raise EmbeddedServerFailed(
            f"The embedded server {complaint}; its log ends: {folder.last_log_lines()}", f"Read {folder.log_file}."
        )
    return process


def stop_postmaster(process: psutil.Process, mode: StopMode, timeout_seconds: float = STOP_TIMEOUT_SECONDS) -> None:
    """Stop a server, and wait until it is gone.

    One that does not go in time is stopped at once, which loses no commit: its next start recovers from the WAL.
    """
    for number in (SIGNALS[mode], signal.SIGQUIT, signal.SIGKILL):
        if _goes(process, number, timeout_seconds):
            return


def _goes(process: psutil.Process, number: signal.Signals, timeout_seconds: float) -> bool:
    """Tell a server to go, again every second: one that is just starting has been seen to lose a signal."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            process.send_signal(number)
            process.wait(min(_AGAIN_SECONDS, timeout_seconds))
        except psutil.TimeoutExpired:
            if time.monotonic() >= deadline:
                return False
        except psutil.NoSuchProcess:
            return True
        else:
            return True


def read_pid_file(data_directory: Path) -> PidFile | None:
    """Return what a server left there; nothing if it left nothing, or nothing that can be read."""
    try:
        lines = _pid_file_path(data_directory).read_text().splitlines()
        status = lines[7].strip() if len(lines) > 7 else "starting"
        return PidFile(int(lines[0]), int(lines[3]), Path(lines[4]), status)
    except (FileNotFoundError, IndexError, ValueError):
        return None


def running_postmaster(data_directory: Path) -> psutil.Process | None:
    """Return the living server of exactly this data directory.

    The number in ``postmaster.pid`` is believed only if that process was started on this directory, because numbers
    are given anew, in containers within seconds.
    """
    pid_file = read_pid_file(data_directory)
    if pid_file is None:
        return None
    try:
        process = psutil.Process(pid_file.pid)
        return process if str(data_directory) in process.cmdline() else None
    except psutil.NoSuchProcess:
        return None


def clean_up_after_crash(data_directory: Path, account: Account) -> None:
    """End what a dead owner or a dead postmaster left of this data directory.

    A stale ``postmaster.pid`` is otherwise PostgreSQL's own affair; it is removed only where PostgreSQL would take it
    for a living server's, since its number is now another process's.
    """
    pid_file_path = _pid_file_path(data_directory)
    postmaster = running_postmaster(data_directory)
    if postmaster is not None:
        stop_postmaster(postmaster, "fast")
    if pid_file_path.exists():
        _end_orphans(data_directory, account)
        left = read_pid_file(data_directory)
        if left is None or psutil.pid_exists(left.pid):
            pid_file_path.unlink()


def make_socket_directory(account: Account) -> Path:
    """Return a fresh folder for the Unix socket that nobody but the account (and root) can enter."""
    directory = Path(tempfile.mkdtemp(prefix=SOCKET_PREFIX, dir=SOCKET_PARENT))
    account.give(directory)
    return directory


def remove_socket_directory(directory: Path) -> None:
    """Remove a folder that `make_socket_directory` made; any other is left alone."""
    if directory.parent == SOCKET_PARENT and directory.name.startswith(SOCKET_PREFIX) and directory.is_dir():
        shutil.rmtree(directory)


def _pid_file_path(data_directory: Path) -> Path:
    return data_directory / "postmaster.pid"


def _wait_until_ready(process: psutil.Popen, data_directory: Path, timeout_seconds: float) -> str | None:
    """Wait until the server accepts connections; return what went wrong, if anything did."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        pid_file = read_pid_file(data_directory)
        if pid_file is not None and pid_file.pid == process.pid and pid_file.status == "ready":
            return None
        if process.poll() is not None:
            return "did not start"
        time.sleep(POLL_SECONDS)
    return f"was not ready within {timeout_seconds:g} s"


def _end_orphans(data_directory: Path, account: Account) -> None:
    """End backends that outlived their killed postmaster, since no new one starts beside them."""
    servers = (process for process in psutil.process_iter(["name"]) if process.info["name"] == "postgres")
    orphans = [process for process in servers if _working_directory(process, account) == str(data_directory)]
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in orphans:
            _send(process, number)
        _, orphans = psutil.wait_procs(orphans, timeout=ORPHAN_TIMEOUT_SECONDS)


def _working_directory(process: psutil.Process, account: Account) -> str | None:
    """Return where a server's process works, which is its data directory.

    Root in a container often may not look at others' processes, but the account may look at its own.
    """
    try:
        return process.cwd()
    except psutil.NoSuchProcess:
        return None
    except psutil.AccessDenied:
        return account.run(["readlink", f"/proc/{process.pid}/cwd"]).stdout.strip()


def _send(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return
