"""A process of its own that puts back what is on trial when this one ends, hangs or is stopped."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO, Self

from ml_postgres_optimization.errors import TargetError
from ml_postgres_optimization.safety.protection.messages import (
    BEAT,
    READY,
    STAND_DOWN,
    Duty,
    Orders,
)

LOG = "watchdog.log"
_MODULE = "ml_postgres_optimization.safety.protection.post"
_END_SECONDS = 5.0
# 0.7 s on an idle machine; a busy one may take long to start Python
_START_SECONDS = 60.0


class Watchdog:
    """The running process, seen from the one that it watches; made by `start`.

    It is in a session of its own, so that neither Ctrl-C nor a closed terminal ends it, and its duty, password
    included, comes through a pipe.

    Parameters
    ----------
    process : subprocess.Popen
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._is_ready = False

    @classmethod
    def start(cls, duty: Duty) -> Self:
        """Start one; what it has to say in the end stands in ``watchdog.log``, beside the journal.

        Raises
        ------
        TargetError
            If it cannot be started.
        """
        try:
            with _log(duty.state_directory) as log:
                process = _spawned(log)
            watchdog = cls(process)
            watchdog._send(duty.line())
        except OSError as error:
            raise TargetError(
                f"No watchdog could be started: {error.strerror or error}.",
                "Nothing is tried without one: let this user start another process.",
            ) from error
        return watchdog

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def stands_by(self, *, within_seconds: float = _START_SECONDS) -> bool:
        """Tell whether it is there, waiting for its first words if need be, though not for longer."""
        output = self._process.stdout
        if not self._is_ready and output is not None and not output.closed:
            # its first words come in one piece
            is_told, _, _ = select.select([output], [], [], within_seconds)
            self._is_ready = bool(is_told) and output.readline().decode().strip() == READY
        return self._is_ready and self._process.poll() is None

    def beat(self) -> None:
        """Tell it that all is well."""
        self._send(BEAT)

    def order(self, orders: Orders) -> None:
        """Tell it what has changed."""
        self._send(orders.line())

    def leave(self) -> None:
        """Leave it alone with what is on trial: it takes us for gone."""
        self._close_streams()
        # it may end before we do, or long after
        threading.Thread(target=self._process.wait, name="watchdog", daemon=True).start()

    def stand_down(self) -> None:
        """Send it home."""
        self._send(STAND_DOWN)
        self._close_streams()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _close_streams(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()

    def _send(self, line: bytes) -> None:
        """Say something to it; that it is dead is told by `stands_by`."""
        if self._process.stdin is not None:
            with suppress(OSError, ValueError):
                self._process.stdin.write(line)


def _log(folder: Path) -> IO[bytes]:
    descriptor = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    return os.fdopen(descriptor, "ab")


def _spawned(log: IO[bytes]) -> subprocess.Popen[bytes]:
    path = os.pathsep.join(os.path.abspath(folder) for folder in sys.path)  # noqa: PTH100 (resolves no links)
    return subprocess.Popen(
        # -P: the working folder is searched only where our own path names it
        [sys.executable, "-P", "-m", _MODULE],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        bufsize=0,
        start_new_session=True,
    )
