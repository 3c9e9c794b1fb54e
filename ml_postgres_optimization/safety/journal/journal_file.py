"""The file of the journal: append-only, whole records only, one writer."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from ml_postgres_optimization.errors import JournalError
from ml_postgres_optimization.safety.journal.decoding import decoded
from ml_postgres_optimization.safety.journal.disk import (
    LOCK_FILE,
    OPEN_FLAGS,
    all_of,
    locked,
    make_private,
    sync_directory,
    write_all,
    write_new,
)
from ml_postgres_optimization.safety.journal.records import (
    JournalledTrial,
    JournalState,
    KnobChange,
    Record,
    RecordKind,
    Terms,
    encoded,
    replayed,
)
from ml_postgres_optimization.telemetry import Clock, SystemClock

FILE = "journal"
OLD_FILE = "journal.1"
_NEW_FILE = "journal.new"
_LARGE_BYTES = 1 << 20
_MOST_UNMIRRORED = 20_000


@dataclass(frozen=True, slots=True)
class Contents:
    """What a journal's bytes hold.

    Parameters
    ----------
    records : tuple of Record
    state : JournalState
        What they add up to.
    whole_bytes : int
        Length of the part that consists of whole records; what comes after it was being written in a crash.
    """

    records: tuple[Record, ...]
    state: JournalState
    whole_bytes: int


def read_contents(data: bytes) -> Contents:
    """Replay a journal's bytes; a torn last record, which nothing can have followed from, is left out.

    Raises
    ------
    ValueError
        If anything else than the tail is not a record; it says at which byte.
    """
    records: list[Record] = []
    position = 0
    while (end := data.find(b"\n", position)) >= 0:
        line = data[position:end]
        if _was_never_written(line) and not _any_record(data[end + 1 :]):
            break
        try:
            records.append(decoded(line))
        except ValueError as error:
            raise ValueError(f"damaged at byte {position}: {error}") from error
        position = end + 1
    _refuse_damaged_end(data, position)
    return Contents(tuple(records), replayed(records), position)


def _refuse_damaged_end(data: bytes, position: int) -> None:
    """Refuse a tail that is a whole record but for its newline: it was not torn, for what comes last is there."""
    tail = data[position:]
    if tail[-1:] not in {b"", b"\0"} and _is_record(tail[:-1]):
        raise ValueError(f"damaged at byte {len(data) - 1}: the end of a line is none")


def _was_never_written(line: bytes) -> bool:
    """Tell whether the file grew but a block of it did not arrive, as a crash can leave it.

    No record holds NUL; a single one would rather be a bit that flipped.
    """
    return b"\0\0" in line


def _any_record(data: bytes) -> bool:
    return any(_is_record(line) for line in data.split(b"\n"))


def _is_record(line: bytes) -> bool:
    try:
        decoded(line)
    except ValueError:
        return False
    return True


def read_journal(directory: Path) -> JournalState:
    """Return what the journal in `directory` says, without locking or changing it; empty where there is none.

    Raises
    ------
    JournalError
        If it is damaged or cannot be read.
    """
    path = directory / FILE
    try:
        return _contents(path, path.read_bytes() if path.exists() else b"").state
    except OSError as error:
        raise _unusable(path, error) from error


def _contents(path: Path, data: bytes) -> Contents:
    try:
        return read_contents(data)
    except ValueError as error:
        raise JournalError(
            f"The journal {path} cannot be trusted: {error}.",
            "Compare it with postgresql.auto.conf, put back by hand what a trial left, then move the file away.",
        ) from error


def _unusable(path: Path, error: OSError) -> JournalError:
    return JournalError(
        f"The journal {path} cannot be used: {error.strerror or error}; nothing was changed.",
        "Make room on that disk and permit writing there, then start again.",
    )


class Journal:
    """The journal of one server: append-only, each record on disk when `append` returns, one writer at a time.

    Parameters
    ----------
    directory : Path
        The server's state folder; made, with its parents, if it is not there. The file in it is ``journal``.
    clock : Clock
    large_bytes : int
        Size above which it is begun anew when nothing is unfinished; what it said before stays in ``journal.1``.

    Attributes
    ----------
    state : JournalState
    notice : str or None
        What was wrong with the file and has been mended when it was opened.
    unmirrored : deque of Record
        Those that were there and those that have been written since, until somebody takes them out to show them
        elsewhere; the latest some thousand.

    Raises
    ------
    AlreadyRunning
        If another process has it open.
    JournalError
        If it is damaged, or the disk does not take it.
    StateError
        If the folder cannot be made or used.
    """

    def __init__(self, directory: Path, *, clock: Clock | None = None, large_bytes: int = _LARGE_BYTES) -> None:
        self._directory = directory
        self._clock = clock or SystemClock()
        self._large_bytes = large_bytes
        self._is_broken = False
        self.notice: str | None = None
        self.unmirrored: deque[Record] = deque(maxlen=_MOST_UNMIRRORED)
        make_private(directory)
        self._lock = locked(directory / LOCK_FILE)
        try:
            self._file, self._size, self.state = self._opened()
        except BaseException:
            os.close(self._lock)
            raise

    @property
    def path(self) -> Path:
        """Where it is."""
        return self._directory / FILE

    def append(
        self,
        kind: RecordKind,
        trial_id: str,
        knobs: Iterable[KnobChange] = (),
        *,
        foreign: Mapping[str, str] | None = None,
        terms: Terms | None = None,
    ) -> Record:
        """Write a record, and wait until it is on disk.

        Raises
        ------
        JournalError
            If it cannot be written; then it is not there, and the journal is as it was before.
        ValueError
            If it does not follow from what came before.
        """
        if self._is_broken:
            raise JournalError(
                f"The journal {self.path} could not be written before, and its end is not certain.",
                "Start again: the journal is then read and mended, and what is unfinished undone.",
            )
        at = self._clock.now().isoformat()
        record = Record(kind, trial_id, at, os.getpid(), tuple(knobs), dict(foreign or {}), terms)
        self._require_place()
        state = self.state.after(record)
        if kind is RecordKind.INTENT and self._size > self._large_bytes and not self.state.unfinished:
            self._begin_anew()
            state = self.state.after(record)
        self._write(encoded(record))
        self.state = state
        self.unmirrored.append(record)
        return record

    def close(self) -> None:
        """Let another process have it."""
        for descriptor in (self._file, self._lock):
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _opened(self) -> tuple[int, int, JournalState]:
        try:
            file = os.open(self.path, OPEN_FLAGS | os.O_APPEND, 0o600)
            try:
                data = all_of(file)
                contents = _contents(self.path, data)
                self._cut_tail(file, data, contents.whole_bytes)
                self.unmirrored.extend(contents.records)
                os.fsync(file)
                sync_directory(self._directory)
            except BaseException:
                os.close(file)
                raise
        except OSError as error:
            raise _unusable(self.path, error) from error
        return file, contents.whole_bytes, contents.state

    def _require_place(self) -> None:
        """See that what is written is found again: somebody may have taken the file away, or the folder with it."""
        try:
            there, ours = self.path.stat(follow_symlinks=False), os.fstat(self._file)
        except OSError as error:
            raise _unusable(self.path, error) from error
        if not os.path.samestat(there, ours):
            raise JournalError(
                f"The journal {self.path} is another file than the one that was opened; nothing was changed.",
                "Put the folder back as it was, or start again: what is on trial is put back then.",
            )

    def _cut_tail(self, file: int, data: bytes, whole_bytes: int) -> None:
        torn_bytes = len(data) - whole_bytes
        if torn_bytes:
            os.ftruncate(file, whole_bytes)
            self.notice = (
                f"The last {torn_bytes} bytes of the journal {self.path} were being written when a run ended; "
                "nothing had followed from them, and they were cut off."
            )

    def _write(self, line: bytes) -> None:
        try:
            write_all(self._file, line)
            os.fsync(self._file)
        except BaseException as error:
            self._take_back()
            if isinstance(error, OSError):
                raise _unusable(self.path, error) from error
            raise
        self._size += len(line)

    def _take_back(self) -> None:
        """Cut off what was written in vain; where even that fails, nothing more may be written after it."""
        self._is_broken = True
        try:
            os.ftruncate(self._file, self._size)
            os.fsync(self._file)
        except OSError as error:
            self.notice = f"The journal {self.path} could not be mended: {error.strerror or error}."
        else:
            self._is_broken = False

    def _keep_as(self, old: Path) -> None:
        try:
            old.hardlink_to(self.path)
        except OSError:  # a file system without hard links: FAT, or one of a network
            write_new(old, os.pread(self._file, self._size, 0))

    def _begin_anew(self) -> None:
        """Keep only what a rollback needs, and the old file beside it; at every moment one of both is whole."""
        kept = {trial.intent.trial_id: trial for trial in self.state.confirmed}
        new, old = self._directory / _NEW_FILE, self._directory / OLD_FILE
        lines = [encoded(trial.intent) + encoded(_confirmation(trial)) for trial in kept.values()]
        try:
            write_new(new, b"".join(lines))
            old.unlink(missing_ok=True)
            self._keep_as(old)
            new.replace(self.path)
            sync_directory(self._directory)
            file = os.open(self.path, OPEN_FLAGS | os.O_APPEND)
        except OSError as error:
            raise _unusable(self.path, error) from error
        os.close(self._file)
        self._file, self._size, self.state = file, sum(map(len, lines)), JournalState(kept)


def _confirmation(trial: JournalledTrial) -> Record:
    return Record(RecordKind.CONFIRMED, trial.intent.trial_id, trial.intent.at, trial.intent.pid)
