"""What a watchdog is told, line by line, through a pipe that ends with the process that tells it."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

BEAT = b"beat\n"
STAND_DOWN = b"stand down\n"
READY = "ready"


@dataclass(frozen=True, slots=True)
class Duty:
    """What a watchdog has to watch over.

    Parameters
    ----------
    connection : tuple of (str, str)
        How the server is reached, by libpq's keywords, secrets included.
    state_directory : Path
        Where the journal is.
    lease_seconds : float
        After so long without a beat, the trial is undone.
    session : str
        What the session in which settings are changed goes by: all that do are ended before anything is put back.
    restart_command : str or None
        Restarts the server, where that is allowed.
    bin_directory : Path or None
        The server's programs, for that.
    embedded : Path or None
        The folder of a server of our own: where it is down, nobody but us starts it.
    """

    connection: tuple[tuple[str, str], ...]
    state_directory: Path
    lease_seconds: float
    session: str
    restart_command: str | None = None
    bin_directory: Path | None = None
    embedded: Path | None = None

    def line(self) -> bytes:
        """Return it as a line."""
        return _line(asdict(self))

    @classmethod
    def of(cls, line: bytes) -> Duty:
        """Read it from a line.

        Raises
        ------
        ValueError, KeyError, TypeError
            If it is none.
        """
        told = json.loads(line)
        programs, embedded = told["bin_directory"], told["embedded"]
        return cls(
            connection=tuple((str(name), str(value)) for name, value in told["connection"]),
            state_directory=Path(told["state_directory"]),
            lease_seconds=float(told["lease_seconds"]),
            session=str(told["session"]),
            restart_command=told["restart_command"],
            bin_directory=None if programs is None else Path(programs),
            embedded=None if embedded is None else Path(embedded),
        )


@dataclass(frozen=True, slots=True)
class Orders:
    """What a watchdog has to know besides, whenever it changes.

    Parameters
    ----------
    longest_seconds : float
        After so long from now on something on trial is put back, beats or not; infinite where there is no limit.
    """

    longest_seconds: float = math.inf

    def line(self) -> bytes:
        """Return them as a line."""
        return _line(asdict(self))

    @classmethod
    def of(cls, line: bytes) -> Orders | None:
        """Read them from a line; None for any other line."""
        if not line.startswith(b"{"):
            return None
        told = json.loads(line)
        return cls(float(told["longest_seconds"]))


def _line(content: dict[str, Any]) -> bytes:
    return json.dumps(content, default=str).encode() + b"\n"
