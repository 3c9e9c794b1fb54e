"""Read along while another process writes a journal."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from ml_postgres_optimization.errors import JournalError
from ml_postgres_optimization.safety.journal.decoding import decoded
from ml_postgres_optimization.safety.journal.journal_file import FILE, OLD_FILE
from ml_postgres_optimization.safety.journal.records import Record


class FollowedJournal:
    """Gives the records that have come since it was last asked, at the cost of one look where there are none.

    A journal that was begun anew meanwhile, since it had grown large, is read to its old end first, and then from its
    new beginning: what it kept comes a second time. Nothing is unfinished when it is begun anew.

    Parameters
    ----------
    directory : Path
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE
        self._old_path = directory / OLD_FILE
        self._inode = 0
        self._read_bytes = 0
        self.has_missed = False
        """Whether, at the last call, an old end was not to be had any more: on a file system without hard links."""

    def new(self) -> tuple[Record, ...]:
        """Return the whole records since the last call.

        Raises
        ------
        JournalError
            If it is damaged or cannot be read.
        """
        try:
            return tuple(decoded(line) for line in self._lines())
        except OSError as error:
            raise JournalError(
                f"The journal {self._path} cannot be read: {error.strerror or error}.", "Permit reading it."
            ) from error
        except ValueError as error:
            raise JournalError(f"The journal {self._path} is damaged: {error}.", "See docs/safety.md.") from error

    def _lines(self) -> list[bytes]:
        lines: list[bytes] = []
        self.has_missed = False
        with suppress(FileNotFoundError):
            found = self._path.stat()
            if found.st_ino != self._inode:
                lines = self._rest_of_the_old()
                self._inode, self._read_bytes = found.st_ino, 0
            if found.st_size > self._read_bytes:
                lines += self._unread(self._path)
        return lines

    def _rest_of_the_old(self) -> list[bytes]:
        if not self._inode:
            return []
        with suppress(FileNotFoundError):
            if self._old_path.stat().st_ino == self._inode:
                return self._unread(self._old_path)
        self.has_missed = True
        return []

    def _unread(self, path: Path) -> list[bytes]:
        """Return the whole lines of a file behind what was read; a torn end may yet be cut off and written over."""
        with path.open("rb") as file:
            file.seek(self._read_bytes, os.SEEK_SET)
            *lines, torn = file.read().split(b"\n")
            self._read_bytes = file.tell() - len(torn)
        return lines
