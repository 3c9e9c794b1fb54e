"""Read along while another process writes a journal."""

from __future__ import annotations

import os
from pathlib import Path

from ml_postgres_optimization.errors import JournalError
from ml_postgres_optimization.safety.journal.decoding import decoded
from ml_postgres_optimization.safety.journal.journal_file import FILE
from ml_postgres_optimization.safety.journal.records import Record


class FollowedJournal:
    """Gives the records that have come since it was last asked, at the cost of one look where there are none.

    A journal that was begun anew meanwhile, since it had grown large, is read from its beginning: what it kept comes
    a second time.

    Parameters
    ----------
    directory : Path
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE
        self._file = 0
        self._read_bytes = 0

    def new(self) -> tuple[Record, ...]:
        """Return the whole records since the last call.

        Raises
        ------
        JournalError
            If it is damaged or cannot be read.
        """
        try:
            data = self._unread()
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise JournalError(
                f"The journal {self._path} cannot be read: {error.strerror or error}.", "Permit reading it."
            ) from error
        whole = data[: data.rfind(b"\n") + 1]
        try:
            records = tuple(decoded(line) for line in whole.splitlines())
        except ValueError as error:
            raise JournalError(f"The journal {self._path} is damaged: {error}.", "See docs/safety.md.") from error
        self._read_bytes += len(whole)
        return records

    def _unread(self) -> bytes:
        with self._path.open("rb") as file:
            found = os.fstat(file.fileno())
            if found.st_ino != self._file or found.st_size < self._read_bytes:
                self._file, self._read_bytes = found.st_ino, 0
            if found.st_size == self._read_bytes:
                return b""
            file.seek(self._read_bytes)
            return file.read()
