"""``optimize --continuous`` beside a test, in a process of its own: it sees the load as it would see users."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from ml_postgres_optimization.errors import PrivilegeMissing, TargetError, UsageError
from ml_postgres_optimization.interfaces.commands.online.elsewhere import is_left_to_others
from ml_postgres_optimization.interfaces.commands.online.optimization import require_something_to_compare
from ml_postgres_optimization.interfaces.commands.soaking.reports import OPTIMIZES
from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.soak.interval import Event, EventKind
from ml_postgres_optimization.soak.journal import RunJournal
from ml_postgres_optimization.soak.running import Timeline
from ml_postgres_optimization.telemetry import Clock, SystemClock
from ml_postgres_optimization.trials import Outcome

LEAST_SECONDS = 180.0
"""Within less no trial ends."""
# It ends before the test does, so that nothing is on trial at the end; to start takes it seconds of that.
_AHEAD_SECONDS = 30.0
# One that is there still has not seen that the machine slept; on its own it would have told what it brought.
_LATEST_SECONDS = 15.0
_STOP_SECONDS = 60.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 30.0, 900.0
_PROGRAM = "from ml_postgres_optimization.interfaces.cli.entry import leashed_main; leashed_main()"
# Nobody can mend them while the test runs.
_FOR_GOOD = frozenset({"UsageError", "PrivilegeMissing"})
# What the test's own environment says of these is not meant for it.
_CLEARED = ("SIMULATE", "ALLOW_RESTART", "RESTART_COMMAND", "TRIALS", "CONTINUOUS", "DURATION_HOURS")


def require_optimizable(session: Session, seconds: float) -> None:
    """Refuse a test of so many seconds with the optimiser beside it, where that could do nothing.

    Raises
    ------
    UsageError
        If it may change nothing, or the test is too short.
    PrivilegeMissing
        If others change this server's settings.
    TargetError
        If no response time can be seen on the server.
    """
    if session.settings.action == "advise":
        raise UsageError(
            "--optimize changes settings, and by GENESIS_ACTION=advise nothing may be changed.",
            "Unset GENESIS_ACTION, or leave --optimize away.",
        )
    if seconds < LEAST_SECONDS:
        raise UsageError(
            f"The test lasts {seconds:.0f} s, and beside it no trial would end within {LEAST_SECONDS:.0f} s.",
            "Choose a longer --duration, or leave --optimize away.",
        )
    if is_left_to_others(session.target.capabilities):
        raise PrivilegeMissing(
            f"The settings of {session.connection.display} are changed by others than we.",
            "Leave --optimize away; genesis-pg optimize --dry-run gives them advice.",
        )
    try:
        require_something_to_compare(session)
    except TargetError as error:
        raise TargetError(error.what, "Mend that (genesis-pg doctor says how), or leave --optimize away.") from error


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One process, and where it writes."""

    process: subprocess.Popen[bytes]
    said: Path
    result: Path
    began_seconds: float


class OptimizerBeside:
    """An optimiser that is kept going as long as the context lasts, and ends with us, however we end.

    Parameters
    ----------
    session : Session
    folder : Path
        Where its result and what it says are written: ``optimizer-<runner>-<attempt>.json`` and ``.log``.
    epoch : int
        Of the runner.
    left_seconds : callable
        Returns how much of the test is left.
    clock : Clock, optional
    """

    def __init__(
        self,
        session: Session,
        folder: Path,
        epoch: int,
        left_seconds: Callable[[], float],
        *,
        clock: Clock | None = None,
    ) -> None:
        self._session = session
        self._folder = folder
        self._epoch = epoch
        self._left_seconds = left_seconds
        self._clock = clock or SystemClock()
        self._attempts_total = 0
        self._running: _Attempt | None = None
        self._again_seconds = self._clock.monotonic_seconds()
        self._pause_seconds = _FIRST_PAUSE_SECONDS
        self._is_over = False
        self._told = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def events(self) -> tuple[Event, ...]:
        """Look after it, the first time begin it, and return what there is to tell."""
        if self._running is None:
            return () if self._is_over or self._clock.monotonic_seconds() < self._again_seconds else self._again()
        if (code := self._running.process.poll()) is not None:
            return self._ended(self._running, code)
        if self._left_seconds() < _LATEST_SECONDS:
            self._is_over = True
            _release(self._running.process)
        return ()

    def close(self) -> None:
        """End it; what is on trial is put back, by itself or by its watchdog."""
        attempt, self._running, self._is_over = self._running, None, True
        if attempt is None:
            return
        _release(attempt.process)
        try:
            with suppress(subprocess.TimeoutExpired):
                attempt.process.wait(_STOP_SECONDS)
        finally:
            if attempt.process.poll() is None:
                attempt.process.kill()
                attempt.process.wait()

    def _begin(self) -> None:
        seconds = self._left_seconds() - _AHEAD_SECONDS
        if seconds < LEAST_SECONDS - _AHEAD_SECONDS:
            self._is_over = True
            return
        stem = f"optimizer-{self._epoch}-{self._attempts_total + 1}"
        said, result = self._folder / f"{stem}.log", self._folder / f"{stem}.json"
        with _private(said) as errors, _private(result) as output:
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", _PROGRAM, self._root(), *self._words(seconds)],
                env=self._environment(),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )
        self._running = _Attempt(process, said, result, self._clock.monotonic_seconds())
        self._attempts_total += 1

    def _again(self) -> tuple[Event, ...]:
        """Begin another one; where this machine lets none begin, a full disk for one, tell it, and try it later."""
        try:
            self._begin()
        except OSError as error:
            return self._pause(f"it cannot be begun: {error.strerror or error}.")
        return ()

    def _ended(self, attempt: _Attempt, code: int) -> tuple[Event, ...]:
        self._running = None
        _release(attempt.process)
        if self._is_over:
            return ()
        if self._clock.monotonic_seconds() - attempt.began_seconds > _LONGEST_PAUSE_SECONDS:
            self._pause_seconds = _FIRST_PAUSE_SECONDS
        document = _read(attempt.result)
        error = document.get("error", {})
        # a result without trials is advice for somebody who may do what we may not
        self._is_over = error.get("kind") in _FOR_GOOD or (bool(document) and not error and "trials" not in document)
        if code == 0:
            return self._pause("it could only give advice.") if self._is_over else self._pause("")
        return self._pause(error.get("what") or f"it ended with code {code}; {attempt.said} has what it said.")

    def _pause(self, what: str) -> tuple[Event, ...]:
        """Wait for longer each time; tell why there is none now, unless that was told last."""
        self._again_seconds = self._clock.monotonic_seconds() + self._pause_seconds
        self._pause_seconds = min(2 * self._pause_seconds, _LONGEST_PAUSE_SECONDS)
        told, self._told = self._told, what
        if what in ("", told):
            return ()
        after = "It is not begun again." if self._is_over else "It is begun again."
        text = f"There is no optimiser beside the test: {what} {after}"
        return (Event(EventKind.RUNNER, text, self._clock.now()),)

    def _words(self, seconds: float) -> Sequence[str]:
        settings = self._session.settings
        words = ["optimize", "--continuous", "--json", f"--duration={seconds / 3600:.6f}", f"--seed={settings.seed}"]
        memory_bytes = settings.memory_limit_bytes
        return [*words, *([f"--memory-limit-bytes={memory_bytes}"] if memory_bytes else [])]

    def _root(self) -> str:
        """Return where ``run.py`` stands, if state and logs lie beside it; nothing where one folder holds both."""
        home = self._session.home
        return "" if home.logs.parent == home.state else str(home.state.parent)

    def _environment(self) -> dict[str, str]:
        """Return the environment, and in it what must not be seen on a command line, such as a password."""
        session = self._session
        path = os.pathsep.join(os.path.abspath(folder) for folder in sys.path)  # noqa: PTH100 (resolves no links)
        named = {
            "GENESIS_DSN": session.connection.dsn_for_driver(),
            "GENESIS_REPOSITORY": session.settings.repository or "",
            "GENESIS_HOME": "" if self._root() else str(session.home.state),
        }
        cleared = {f"GENESIS_{name}": "" for name in _CLEARED}
        return {**os.environ, **cleared, **named, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def optimizer_beside(session: Session, journal: RunJournal, timeline: Timeline, epoch: int) -> OptimizerBeside | None:
    """Return the optimiser that a run wants beside it; None where it wants none."""
    description = journal.description
    if not description.load.get(OPTIMIZES):
        return None
    return OptimizerBeside(
        session,
        journal.directory,
        epoch,
        lambda: description.duration_seconds - timeline.elapsed_seconds,
    )


def results_in(folder: Path) -> list[Mapping[str, Any]]:
    """Return the results of the optimisers beside the run in `folder`, of those that came to an end of their own."""
    found = [_read(path) for path in sorted(folder.glob("optimizer-*.json"))]
    return [document for document in found if "trials" in document]


def told_of(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each result."""
    return [
        f"Trials of the optimiser beside the test: {len(result['trials'])}, of which "
        f"{sum(trial.get('outcome') == Outcome.PROMOTED for trial in result['trials'])} kept."
        for result in results
    ]


def _release(process: subprocess.Popen[bytes]) -> None:
    """Let go of the leash: it ends in good order."""
    if process.stdin is not None:
        process.stdin.close()


def _private(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


def _read(path: Path) -> Mapping[str, Any]:
    with suppress(OSError, ValueError):
        document = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(document, Mapping):
            return document
    return {}
