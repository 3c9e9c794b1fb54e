"""The pause file: as long as it is there, nothing on the server is changed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ml_postgres_optimization.errors import StateError
from ml_postgres_optimization.telemetry import Clock

PAUSE_FILE = "paused"
_MOST_READ_BYTES = 500
_NEW_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class PauseFile:
    """Whether the owner has called a halt.

    Any file of that name counts, whoever made it and whatever it holds: ``touch`` is enough. So does one that cannot
    be looked at, since it might be there.

    Parameters
    ----------
    directory : Path
        The server's state folder.
    """

    directory: Path

    @property
    def path(self) -> Path:
        """Where it is, or would be."""
        return self.directory / PAUSE_FILE

    def said(self) -> str | None:
        """Return what the file says of itself, which may be nothing; None where there is none."""
        try:
            with self.path.open("rb") as file:
                text = file.read(_MOST_READ_BYTES).decode(errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            return f"it cannot be read: {error.strerror or error}"
        return " ".join(text.split())

    def pause(self, clock: Clock, reason: str = "") -> bool:
        """Make it; return False where it was there already, which stays as it is.

        Raises
        ------
        StateError
            If it cannot be made.
        """
        text = f"since {clock.now():%Y-%m-%d %H:%M:%S} UTC{f': {reason}' if reason else ''}\n"
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            # a reason comes from a command line, which may be in any encoding
            with os.fdopen(os.open(self.path, _NEW_FLAGS, 0o600), "w", encoding="utf-8", errors="replace") as file:
                file.write(text)
        except OSError as error:
            if self.said() is not None:
                return False
            raise StateError(
                f"The pause file {self.path} cannot be made: {error.strerror or error}.",
                "Make room or permit writing there; or end the run: what is on trial is put back then too.",
            ) from error
        return True

    def resume(self) -> bool:
        """Take it away; return False where there was none.

        Raises
        ------
        StateError
            If it cannot be taken away.
        """
        try:
            self.path.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StateError(
                f"The pause file {self.path} cannot be taken away: {error.strerror or error}.",
                "Take it away by hand.",
            ) from error
        return True
