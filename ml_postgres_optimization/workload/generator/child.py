"""One client process, seen from its parent."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from bisect import bisect_left
from collections import deque
from multiprocessing import Pipe
from multiprocessing.connection import Connection as Channel
from typing import IO

from ml_postgres_optimization.errors import (
    AuthenticationFailed,
    GenesisError,
    PrivilegeMissing,
    ServerUnreachable,
    TargetError,
    UsageError,
)
from ml_postgres_optimization.workload.plan import LoadPlan
from ml_postgres_optimization.workload.process.messages import Failure, Position, Report

_MODULE = "ml_postgres_optimization.workload.process"
# ten minutes of reports, as often as they come unless told otherwise
_REPORTS_KEPT = 3_000
_KILL_TIMEOUT_SECONDS = 5.0


class ChildProcess:
    """A running client process and the pipe to it.

    A plain subprocess rather than one of `multiprocessing`: that would import the parent's main module again, with
    everything it needs, in every process. It reads nothing from its command line but the number of its pipe, and
    ends when the pipe does, so it cannot outlive its parent. It is not in the terminal's process group: Ctrl-C is
    the parent's to answer.

    Parameters
    ----------
    worker : int
        Its number; a process that takes another's place has the same.
    """

    def __init__(self, worker: int) -> None:
        self.worker = worker
        # operations that came due and have not been reported as done or skipped
        self.waiting_total = 0
        self.channel, theirs = Pipe()
        self.position = Position()
        self.heard_at_seconds = time.monotonic()
        self.reported_until_seconds = self.heard_at_seconds
        self.has_finished = False
        self.concurrency_limit: int | None = None
        self.failure: Failure | None = None
        self._cpu: deque[tuple[float, float]] = deque(maxlen=_REPORTS_KEPT)
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (`bury` closes it)
        try:
            self._process = _spawn(theirs, self._errors)
        except BaseException:
            self.channel.close()
            self._errors.close()
            raise
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def send(self, message: object) -> None:
        """Send it a message; nothing happens when it is dead, which the one who listens will notice."""
        try:
            self.channel.send(message)
        except OSError:
            self.failure = self.failure or Failure("its pipe is closed")

    def hear(self, report: Report) -> None:
        """Remember what a report says of the process itself."""
        self.reported_until_seconds = report.at_seconds
        self.position = report.position or self.position
        self.waiting_total += report.due_total - report.ended_total - report.skipped_total
        self.has_finished = report.is_last
        self.concurrency_limit = report.concurrency_limit
        self._cpu.append((report.at_seconds, report.cpu_seconds))

    def cpu_ratio(self, since_seconds: float) -> float:
        """Return the share of a core that it used since a monotonic time; 0 before there are two reports."""
        first = min(max(0, bisect_left(self._cpu, (since_seconds, 0.0)) - 1), max(0, len(self._cpu) - 2))
        if len(self._cpu) < 2:
            return 0.0
        (began, cpu_before), (ended, cpu_after) = self._cpu[first], self._cpu[-1]
        return (cpu_after - cpu_before) / (ended - began) if ended > began else 0.0

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def bury(self) -> str:
        """Wait for its end, give back what it held, and return one line on why it ended."""
        try:
            code = self._process.wait(_KILL_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self.channel.close()
        reason = self.failure.reason if self.failure else _last_line(self._errors) or f"it ended with code {code}"
        self._errors.close()
        return reason


def check_picklable(plan: LoadPlan) -> None:
    """Refuse a rate shape that cannot be sent to another process.

    Raises
    ------
    UsageError
    """
    shape = plan.rate_shape
    home = getattr(shape, "__module__", "__main__")
    name = getattr(shape, "__qualname__", type(shape).__qualname__)
    if home == "__main__" or "<" in name:
        raise UsageError(
            f"The rate shape {name} of {home} cannot be sent to the client processes.",
            "Define it at the top of a module that can be imported.",
        )


def failure_at_start(failure: Failure) -> GenesisError:
    """Return our error for a process that could not open its connections."""
    kinds: dict[str, type[GenesisError]] = {
        "08": ServerUnreachable,
        "57": ServerUnreachable,
        "28": AuthenticationFailed,
        "42501": PrivilegeMissing,
        "53300": UsageError,
    }
    error = kinds.get(failure.sqlstate) or kinds.get(failure.sqlstate[:2]) or TargetError
    return error(
        f"The load could not open its connections: {failure.reason} ({failure.sqlstate or 'no SQLSTATE'})",
        "See what the server's log says of it; fewer connections may help where there were too many.",
    )


def _spawn(theirs: Channel, errors: IO[bytes]) -> subprocess.Popen[bytes]:
    path = os.pathsep.join(os.path.abspath(folder) for folder in sys.path)  # noqa: PTH100 (resolves no links)
    return subprocess.Popen(
        # -P: the working folder is searched only where our own path names it
        [sys.executable, "-P", "-m", _MODULE, str(theirs.fileno())],
        pass_fds=(theirs.fileno(),),
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        process_group=0,
    )


def _last_line(errors: IO[bytes]) -> str:
    errors.seek(0)
    lines = errors.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
