"""The watchdog's own process: it waits for the end of the one that it watches, and then puts back what was on trial.

``python -m ml_postgres_optimization.safety.protection.post``; its duty comes as the first line of its standard input.
"""

from __future__ import annotations

import math
import os
import select
import signal
import sys
from contextlib import ExitStack, suppress
from enum import StrEnum
from pathlib import Path

from ml_postgres_optimization.errors import AlreadyRunning, ServerUnreachable
from ml_postgres_optimization.safety.at_rest import undo_at_rest
from ml_postgres_optimization.safety.journal import Journal, read_journal
from ml_postgres_optimization.safety.protection.messages import READY, STAND_DOWN, Duty, Orders
from ml_postgres_optimization.safety.undo import put_back, undo_unfinished
from ml_postgres_optimization.target.embedded import EmbeddedServer, find_binaries
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings, connect
from ml_postgres_optimization.target.postgres.lock import end_sessions, optimizer_lock
from ml_postgres_optimization.target.postgres.server import MakeRestarter, PostgresTarget
from ml_postgres_optimization.target.protocols import Restarter
from ml_postgres_optimization.target.restart import CommandRestarter
from ml_postgres_optimization.telemetry import Clock, SystemClock

# While the server is away: at first it is looked for often, since it may be back at any moment.
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.2, 1.0
_GIVE_UP_SECONDS = 24 * 3600.0
_LOCK_PATIENCE_SECONDS = 5.0
_JOURNAL_PATIENCE_SECONDS = 0.5


class Ending(StrEnum):
    """Why nothing is to be watched any more."""

    STOOD_DOWN = "it is done"
    GONE = "it is gone"
    SILENT = "it has not been heard of for the length of its lease"
    LATE = "it takes longer than it said"


class Watch:
    """Listen to the process at the other end of a pipe.

    Parameters
    ----------
    stream : int
        File descriptor that it writes to.
    process : int
        Its number; its death is noticed even where others hold the pipe open.
    duty : Duty
    """

    def __init__(self, stream: int, process: int, duty: Duty, *, clock: Clock) -> None:
        self._stream = stream
        self._process = process
        self._clock = clock
        self._rest = b""
        self._end_seconds = math.inf
        self._lease_seconds = duty.lease_seconds

    def ending(self) -> Ending:
        """Wait until it stands us down, ends, or is silent for too long."""
        poll = select.poll()
        poll.register(self._stream, select.POLLIN | select.POLLHUP)
        with suppress(OSError):  # gone already: the pipe says so as well
            poll.register(os.pidfd_open(self._process), select.POLLIN)
        while True:
            ready = poll.poll(1000 * min(self._lease_seconds, max(0.0, self._left_seconds)))
            if self._left_seconds <= 0:
                return Ending.LATE
            if not ready:
                return Ending.SILENT
            told = os.read(self._stream, 65536) if any(stream == self._stream for stream, _ in ready) else b""
            if self._is_stood_down_by(told):
                return Ending.STOOD_DOWN
            if not told:
                return Ending.GONE

    @property
    def _left_seconds(self) -> float:
        return self._end_seconds - self._clock.monotonic_seconds()

    def _is_stood_down_by(self, told: bytes) -> bool:
        *lines, self._rest = (self._rest + told).split(b"\n")
        for line in lines:
            if (orders := Orders.of(line)) is not None:
                self._end_seconds = self._clock.monotonic_seconds() + orders.longest_seconds
        return STAND_DOWN.strip() in lines


def stand_in(duty: Duty, *, clock: Clock) -> str:
    """Put back what is on trial, as soon as the server can be reached, and say what was done.

    Every session of the one that was watched that changes settings is ended first, whenever it was opened, so that
    nothing more comes from it, and the lock of the one optimiser is taken. Where somebody else has that, it is waited
    for: until the journal says that nothing of it is unfinished any more.
    """
    give_up_seconds = clock.monotonic_seconds() + _GIVE_UP_SECONDS
    pause_seconds = _FIRST_PAUSE_SECONDS
    while True:
        try:
            return _put_back(duty, clock)
        except Exception as failure:  # whatever it is: nobody else may be there to put it back
            if clock.monotonic_seconds() > give_up_seconds:
                return f"given up after a day, the next start of ours puts it back: {failure}"
        clock.sleep(pause_seconds)
        pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)


def _put_back(duty: Duty, clock: Clock) -> str:
    if not read_journal(duty.state_directory).unfinished:
        return "nothing is on trial any more"
    settings = ConnectionSettings(duty.connection, "the watchdog's duty")
    with ExitStack() as resources:
        try:
            target = resources.enter_context(PostgresTarget.open(settings, restarter=_restarter(duty, resources)))
        except ServerUnreachable:
            if duty.embedded is None:
                raise
            return _put_back_at_rest(duty.embedded, duty.state_directory, clock)
        target.changing.run(lambda connection: end_sessions(connection, duty.session, clock), "end a session")
        resources.enter_context(optimizer_lock(target.changing, patience_seconds=_LOCK_PATIENCE_SECONDS, clock=clock))
        try:
            journal = resources.enter_context(_journal(duty.state_directory, clock))
        except AlreadyRunning:
            return _put_back_beside(target, duty.state_directory)
        return " ".join(str(undone) for undone in undo_unfinished(target, journal, capabilities=target.capabilities))


def _put_back_at_rest(embedded: Path, directory: Path, clock: Clock) -> str:
    """Put back in the file of our own server, which died together with the one that was watched."""
    with EmbeddedServer.at_rest(embedded) as data_directory, _journal(directory, clock) as journal:
        return " ".join(str(undone) for undone in undo_at_rest(data_directory, journal))


def _journal(directory: Path, clock: Clock) -> Journal:
    """Open the journal; a process that is about to end may hold it for a moment yet."""
    end_seconds = clock.monotonic_seconds() + _JOURNAL_PATIENCE_SECONDS
    while True:
        try:
            return Journal(directory)
        except AlreadyRunning:
            if clock.monotonic_seconds() > end_seconds:
                raise
        clock.sleep(_FIRST_PAUSE_SECONDS)


def _put_back_beside(target: PostgresTarget, directory: Path) -> str:
    """Put back without a word in the journal, which a stopped process still holds; it will find nothing to do."""
    unfinished = read_journal(directory).unfinished
    for trial in reversed(unfinished):
        put_back(target, trial.intent.knobs)
    return f"put back, for a process that is stopped: {', '.join(trial.intent.trial_id for trial in unfinished)}"


def _restarter(duty: Duty, resources: ExitStack) -> MakeRestarter | None:
    if duty.restart_command is None:
        return None

    def made(connection: ConnectionSettings, data_directory: Path | None, programs: Path | None) -> Restarter:
        return resources.enter_context(
            CommandRestarter(
                str(duty.restart_command),
                lambda: connect(connection, purpose="restart").close(),
                data_directory=data_directory,
                binaries=find_binaries(duty.bin_directory or programs),
            )
        )

    return made


def main() -> None:
    """Stand by, and say so on standard output, until the end of the process that began this one."""
    for ends_others in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # it ends when it is sent home, or its work is done: a service that is stopped ends all of its processes
        signal.signal(ends_others, signal.SIG_IGN)
    stream, clock = sys.stdin.fileno(), SystemClock()
    parent = os.getppid()
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(stream, 1)
        if not byte:
            return
        line += byte
    duty = Duty.of(line)
    watch = Watch(stream, parent, duty, clock=clock)
    sys.stdout.write(f"{READY}\n")
    sys.stdout.flush()
    ending = watch.ending()
    if ending is not Ending.STOOD_DOWN:
        said = stand_in(duty, clock=clock)
        sys.stderr.write(f"{clock.now().isoformat()} process {parent}: {ending}; {said}\n")


if __name__ == "__main__":
    main()
