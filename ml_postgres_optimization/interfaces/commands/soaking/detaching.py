"""``test --detach``: the same test in a process of its own, which goes on when the terminal is closed."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

from ml_postgres_optimization import errors
from ml_postgres_optimization.errors import GenesisError, StateError
from ml_postgres_optimization.interfaces.home import Home
from ml_postgres_optimization.interfaces.reporter import Reporter, Result
from ml_postgres_optimization.soak.journal import KnownRun, run_of_process
from ml_postgres_optimization.telemetry import Clock, SystemClock

_LOOK_SECONDS = 0.2
# The load's processes hand over what they have left, and an embedded server is stopped.
_STOP_SECONDS = 60.0
_MODULE = "ml_postgres_optimization.interfaces.cli"


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where a detached process writes.

    Parameters
    ----------
    said : Path
        What it says while it works.
    result : Path
        Its result, or its error, as one JSON document.
    """

    said: Path
    result: Path

    @classmethod
    def new(cls, folder: Path) -> Outputs:
        """Return names in `folder` that nothing has."""
        stem = f"detached-{os.getpid()}-{secrets.token_hex(4)}"
        return cls(folder / f"{stem}.log", folder / f"{stem}.json")

    def moved(self, run: KnownRun) -> Outputs:
        """Move both into the run's folder, named by its runner's epoch; the process goes on writing them."""
        stem = f"detached-{run.state.epoch}"
        kept = Outputs(run.folder / f"{stem}.log", run.folder / f"{stem}.json")
        self.said.rename(kept.said)
        self.result.rename(kept.result)
        return kept


def detach_test(
    home: Home, environ: Mapping[str, str], reporter: Reporter, words: Sequence[str], *, clock: Clock | None = None
) -> Result:
    """Start ``genesis-pg`` with `words` in a session of its own, and return once its run has begun.

    Parameters
    ----------
    environ : mapping of str to str
        The child's: what must not be seen on a command line, passwords above all, is in it.
    words : sequence of str
        What follows ``genesis-pg``; ``--json`` among them.
    clock : Clock, optional

    Raises
    ------
    StateError
        If the state folder cannot be used, or no process can be started.
    GenesisError
        What the child ended with before its run had begun.
    """
    home.prepare()
    clock, outputs = clock or SystemClock(), Outputs.new(home.state)
    began_at = clock.now()
    try:
        process = _spawned(outputs, environ, words)
    except OSError as error:
        raise StateError(
            f"No process can be started: {error.strerror or error}.", "Let this user start another one, or stay."
        ) from error
    try:
        run = _begun(home, process, _Echo(outputs.said, reporter), clock, began_at)
    except KeyboardInterrupt:  # in a session of its own, it does not hear of Ctrl-C
        process.terminate()
        process.wait(_STOP_SECONDS)
        raise
    if run is None:
        raise _failure(outputs, process.returncode)
    return _told(run, outputs.moved(run), process.pid)


def _spawned(outputs: Outputs, environ: Mapping[str, str], words: Sequence[str]) -> subprocess.Popen[bytes]:
    path = os.pathsep.join(os.path.abspath(folder) for folder in sys.path)  # noqa: PTH100 (resolves no links)
    with _private(outputs.said) as said, _private(outputs.result) as result:
        return subprocess.Popen(
            # -P: the working folder is searched only where our own path names it
            [sys.executable, "-P", "-m", _MODULE, *words],
            env={**environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=result,
            stderr=said,
            start_new_session=True,
        )


def _private(path: Path) -> IO[bytes]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o600), "ab")


class _Echo:
    """Repeats what the child says until its run has begun: making tables takes a while."""

    def __init__(self, path: Path, reporter: Reporter) -> None:
        self._path = path
        self._reporter = reporter
        self._lines_total = 0

    def repeat(self) -> None:
        """Say the whole lines that have come since the last call."""
        lines = self._path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
        for line in lines[self._lines_total :]:
            self._reporter.say(line)
        self._lines_total = len(lines)


def _begun(
    home: Home, process: subprocess.Popen[bytes], echo: _Echo, clock: Clock, began_at: datetime
) -> KnownRun | None:
    """Return the run of a child as soon as it has begun; None where the child has ended without."""
    while True:
        has_ended = process.poll() is not None  # before the look: nothing begins after it
        for folder in home.all_runs():
            run = run_of_process(folder, process.pid)
            # an earlier process may have had that number
            if run and run.state.epoch and run.state.last_at and run.state.last_at >= began_at:
                return run
        if has_ended:
            return None
        echo.repeat()
        clock.sleep(_LOOK_SECONDS)


def _failure(outputs: Outputs, code: int) -> GenesisError:
    """Return the error that the child has told; where it could tell none, what it left is kept."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        told = json.loads(outputs.result.read_text(encoding="utf-8"))["error"]
        kind = getattr(errors, told["kind"], GenesisError)
        error: GenesisError = kind(told["what"], told["next_step"])
        for note in told["notes"]:
            error.add_note(note)
        outputs.said.unlink()
        outputs.result.unlink()
        return error
    return GenesisError(
        f"The detached test ended before it had begun, with exit code {code}.", f"What it said is in {outputs.said}."
    )


def _told(run: KnownRun, outputs: Outputs, process_id: int) -> Result:
    lines = [
        f"Run {run.name} goes on without this terminal (process {process_id}).",
        f"See it with genesis-pg test --attach {run.name}, test --list or status.",
        f"Stop it with genesis-pg test --stop {run.name}",
        f"What it says is in {outputs.said}, its result then in {outputs.result}.",
    ]
    document = {
        "run": run.name,
        "folder": str(run.folder),
        "process_id": process_id,
        "log": str(outputs.said),
        "result": str(outputs.result),
    }
    return Result(document, (), lines)
