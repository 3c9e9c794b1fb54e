"""Restart a server of the user's by the user's own command."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from ml_postgres_optimization.errors import ServerUnreachable, TargetError, UsageError
from ml_postgres_optimization.target.embedded import Binaries
from ml_postgres_optimization.target.restart.auto_conf import FILE_NAME, restart_or_rescue
from ml_postgres_optimization.target.restart.rehearsal import Rehearsal

_COMMAND_TIMEOUT_SECONDS = 300.0
_START_TIMEOUT_SECONDS = 120.0
_POLL_SECONDS = 0.2
_LONGEST_COMPLAINT = 300


class CommandRestarter:
    """Restart a server by a command such as ``systemctl restart postgresql``; implements `protocols.Restarter`.

    Parameters
    ----------
    command : str
        Split as a shell would, and run without one.
    connect : callable
        Connects to the server and leaves again; raises `ServerUnreachable` while that cannot be done.
    data_directory : Path or None
        On this machine; None where it cannot be seen from here.
    binaries : Binaries
        The server's own programs, for rehearsals.

    Raises
    ------
    UsageError
        If the command is empty or cannot be split, or the server could not be brought back after a bad start: its
        ``postgresql.auto.conf`` has to be writable from here.
    """

    def __init__(
        self, command: str, connect: Callable[[], None], *, data_directory: Path | None, binaries: Binaries
    ) -> None:
        self._command = _split(command)
        self._connect = connect
        self._data_directory = _mendable(data_directory)
        self._rehearsal = Rehearsal(binaries)

    def rehearse(self, values: Mapping[str, str]) -> None:
        """See that a server of the same programs would start with `values`.

        Raises
        ------
        ChangeRefused
            If it would not.
        EmbeddedServerFailed
            If that cannot be found out.
        """
        self._rehearsal.play(values)

    def restart(self, rescue: Mapping[str, str | None]) -> None:
        """Run the command, wait until the server answers, and bring it back under `rescue` should it not.

        Raises
        ------
        ChangeRefused
            If it had to be brought back.
        TargetError
            If it does not answer at all.
        """
        restart_or_rescue(self._restart, self._data_directory, rescue)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rehearsal.close()

    def _restart(self) -> None:
        complaint = self._run()
        if complaint:
            raise TargetError(
                f"The command {shlex.join(self._command)} did not restart the server: {complaint}",
                "Run it by hand to see why.",
            )
        self._await()

    def _run(self) -> str | None:
        """Run the command; return what went wrong, if anything did."""
        # a file, no pipe: the server may inherit it, and would hold a pipe open for as long as it runs
        with tempfile.TemporaryFile() as output:
            try:
                subprocess.run(
                    self._command,
                    check=True,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    timeout=_COMMAND_TIMEOUT_SECONDS,
                )
            except subprocess.TimeoutExpired:
                return f"it took longer than {_COMMAND_TIMEOUT_SECONDS:g} s"
            except subprocess.CalledProcessError as error:
                return f"exit code {error.returncode}, {_end_of(output)}"
            except OSError as error:
                return error.strerror or str(error)
        return None

    def _await(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_SECONDS
        while True:
            try:
                self._connect()
            except ServerUnreachable:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_POLL_SECONDS)
            else:
                return


def _end_of(output: IO[bytes]) -> str:
    output.seek(0)
    said = " ".join(output.read().decode(errors="replace").split())[-_LONGEST_COMPLAINT:]
    return f"it says: {said}" if said else "without a word"


def _split(command: str) -> list[str]:
    try:
        parts = shlex.split(command)
    except ValueError as error:
        raise UsageError(
            f"--restart-command {command!r} cannot be read: {error}.", "Quote it as in a shell."
        ) from error
    if not parts:
        raise UsageError("--restart-command is empty.", "Give the command that restarts the server.")
    return parts


def _mendable(data_directory: Path | None) -> Path:
    if data_directory is None:
        raise UsageError(
            "The server's data directory cannot be seen from here, so a bad start could not be mended.",
            "Run on the server's own machine, or leave --allow-restart out.",
        )
    # a new file takes the place of the old one: the folder has to be writable, and the file readable
    if not (os.access(data_directory, os.W_OK | os.X_OK) and os.access(data_directory / FILE_NAME, os.R_OK)):
        raise UsageError(
            f"{data_directory / FILE_NAME} cannot be written by this user, so a bad start could not be mended.",
            "Run as the user who runs the server, or leave --allow-restart out.",
        )
    return data_directory
