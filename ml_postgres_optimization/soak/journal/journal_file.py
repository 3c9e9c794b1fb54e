"""The journal of a run: one file, only ever appended to, with a record for every interval."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from ml_postgres_optimization.errors import JournalError
from ml_postgres_optimization.safety.journal.disk import (
    LOCK_FILE,
    OPEN_FLAGS,
    locked,
    make_private,
    sync_directory,
    write_all,
    write_new,
)
from ml_postgres_optimization.soak.journal.columns import packed, unpacked, window_columns, window_of
from ml_postgres_optimization.soak.journal.description import RunDescription
from ml_postgres_optimization.soak.journal.framing import Framed, RecordKind, framed, records
from ml_postgres_optimization.soak.journal.records import Entry, Measured, entry_of, payload_of, state_after
from ml_postgres_optimization.soak.journal.state import RunState

FILE = "soak.journal"
# What the last runner had in memory only, written over in place: a disk that is full takes that.
_UNWRITTEN = "soak.unwritten"
_UNWRITTEN_BYTES = 64
_SNAPSHOTS = "snapshot-*"
_SNAPSHOTS_KEPT = 2
# Ten minutes of 10-second intervals: what has to be read again takes less than a second.
SNAPSHOT_EVERY = 60


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a run's folder holds.

    Parameters
    ----------
    description : RunDescription
    state : RunState
    whole_bytes : int
        Length of the journal up to the end of its last whole record.
    damaged_bytes : int
        Bytes before that which are no record, as far as was read; the intervals in them are lost.
    """

    description: RunDescription
    state: RunState
    whole_bytes: int
    damaged_bytes: int = 0


def entries(directory: Path, run: str, offset: int = 0) -> Iterator[tuple[Framed, Entry]]:
    """Yield the entries of the journal in `directory`, past damage; what is no entry of ours is damage too."""
    with (directory / FILE).open("rb") as file:
        for record in records(file, run, offset):
            if record.kind is RecordKind.RUN:
                continue
            try:
                entry = entry_of(record)
            except ValueError:  # a whole record whose contents are not ours: its interval is lost, and seen as a gap
                continue
            yield record, entry


def read_description(directory: Path) -> RunDescription:
    """Return what run the journal in `directory` is of.

    Raises
    ------
    JournalError
        If there is none, it is damaged at its very beginning, is another run's, or of another format.
    """
    path = directory / FILE
    try:
        with path.open("rb") as file:
            first = next(records(file, directory.name), None)
    except OSError as error:
        raise _unusable(path, error) from error
    if first is not None and first.kind is RecordKind.RUN and first.offset == 0:
        return RunDescription.from_bytes(first.payload)
    for snapshot in _snapshots(directory):
        with suppress(OSError, ValueError, KeyError, TypeError):
            return RunDescription.from_bytes(_read_snapshot(snapshot, directory.name)[0])
    raise JournalError(
        f"{path} does not begin with the description of run {directory.name}: it is damaged, or another run's.",
        "Restore it from a copy, or start another run.",
    )


def recover(directory: Path) -> Recovered:
    """Return how far the run in `directory` has come: from the latest snapshot that is whole, and what follows it.

    Raises
    ------
    JournalError
        As `read_description`.
    """
    description = read_description(directory)
    state, offset = _latest_snapshot(directory)
    size, damaged = (directory / FILE).stat().st_size, 0
    if offset > size:  # the journal was cut shorter than the snapshot knew it
        state, offset = RunState(), 0
    end = offset or _end_of_description(directory)
    for record, entry in entries(directory, directory.name, offset):
        damaged += record.damaged_before
        state, end = state_after(state, entry), record.end
    state = replace(state, lost_until=min(_lost_until(directory, state), description.intervals_total - 1))
    return Recovered(description, state, end, damaged)


def _lost_until(directory: Path, state: RunState) -> int:
    """Return the last interval that a killed runner had in memory only, or was in; -1 where it did not say."""
    with suppress(OSError, ValueError):
        epoch, number = map(int, (directory / _UNWRITTEN).read_text(encoding="ascii").split())
        if epoch == state.epoch and number > state.last_number and state.ending is None:
            return number + 1
    return -1


def _end_of_description(directory: Path) -> int:
    with (directory / FILE).open("rb") as file:
        first = next(records(file, directory.name), None)
    return first.end if first is not None and first.kind is RecordKind.RUN else 0


class RunJournal:
    """A run's journal, open for one runner: a record is on disk when `append` returns.

    Parameters
    ----------
    directory : Path
        The run's folder, whose name is the run's.
    description : RunDescription, optional
        Of a new run; one that is there is recovered where it is absent.

    Attributes
    ----------
    description : RunDescription
    state : RunState
    dropped_bytes : int
        Of a record that was being written when the last runner was killed; cut off when the journal was opened.

    Raises
    ------
    AlreadyRunning
        If another runner has it open.
    JournalError
        If it cannot be read or written.
    StateError
        If the folder cannot be used.
    """

    def __init__(self, directory: Path, description: RunDescription | None = None) -> None:
        self._directory = directory
        make_private(directory)
        self._lock = locked(directory / LOCK_FILE)
        try:
            self._file, self._size = self._opened(description)
            self._unwritten = self._reserved()
        except OSError as error:
            os.close(self._lock)
            raise _unusable(directory / FILE, error) from error
        except BaseException:
            os.close(self._lock)
            raise

    def _opened(self, description: RunDescription | None) -> tuple[int, int]:
        path = self._directory / FILE
        self.dropped_bytes = self.damaged_bytes = 0
        self.state = RunState()
        if description is not None:
            write_new(path, framed(RecordKind.RUN, description.to_bytes(), self._directory.name))
            sync_directory(self._directory)
            self.description, size = description, path.stat().st_size
        else:
            found = recover(self._directory)
            self.description, self.state, size = found.description, found.state, found.whole_bytes
            self.dropped_bytes, self.damaged_bytes = path.stat().st_size - size, found.damaged_bytes
        file = os.open(path, OPEN_FLAGS)
        os.ftruncate(file, size)
        os.lseek(file, 0, os.SEEK_END)
        return file, size

    def _reserved(self) -> int:
        """Have room on the disk for what `note_unwritten` says, before the disk is full."""
        file = os.open(self._directory / _UNWRITTEN, OPEN_FLAGS, 0o600)
        if os.fstat(file).st_size < _UNWRITTEN_BYTES:
            with suppress(OSError):
                write_all(file, b"0 -1".ljust(_UNWRITTEN_BYTES))
                os.fsync(file)
        return file

    @property
    def directory(self) -> Path:
        """Where it is."""
        return self._directory

    def append(self, entry: Entry) -> None:
        """Write an entry, and wait until it is on disk.

        Raises
        ------
        OSError
            If it cannot be written; then the journal is as it was before.
        """
        kind, payload = payload_of(entry)
        data = framed(kind, payload, self._directory.name)
        try:
            write_all(self._file, data)
            os.fdatasync(self._file)
        except BaseException:
            with suppress(OSError):
                os.ftruncate(self._file, self._size)
            os.lseek(self._file, self._size, os.SEEK_SET)
            raise
        self._size += len(data)
        self.state = state_after(self.state, entry)
        if isinstance(entry, Measured) and entry.interval.number % SNAPSHOT_EVERY == SNAPSHOT_EVERY - 1:
            with suppress(OSError):  # it only makes the next start quicker
                self.snapshot()

    def note_unwritten(self, number: int) -> None:
        """Say beside the journal up to which interval its runner has some in memory only.

        Where the disk does not even take this, the next runner knows of one only.
        """
        text = f"{self.state.epoch} {number}".encode().ljust(_UNWRITTEN_BYTES)
        with suppress(OSError):
            os.pwrite(self._unwritten, text, 0)
            os.fdatasync(self._unwritten)

    def snapshot(self) -> None:
        """Write how far the run has come, by renaming a whole file; the last two are kept.

        Raises
        ------
        OSError
        """
        window, blob = (None, b"") if self.state.whole is None else window_columns(self.state.whole)
        description = self.description.to_bytes().decode()
        state = self.state.to_json()
        content = {"state": state, "whole": window, "offset": self._size, "description": description}
        target = self._directory / f"snapshot-{self._size:014d}"
        unfinished = self._directory / "snapshot.new"
        write_new(unfinished, framed(RecordKind.INTERVAL, packed(content, blob), self._directory.name))
        unfinished.rename(target)
        sync_directory(self._directory)
        for old in _snapshots(self._directory)[_SNAPSHOTS_KEPT:]:
            old.unlink()

    def close(self) -> None:
        """Close the file, and let others have the run."""
        for file in (self._file, self._unwritten, self._lock):
            os.close(file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _snapshots(directory: Path) -> list[Path]:
    """Return the snapshots, the latest first."""
    return sorted(directory.glob(_SNAPSHOTS), reverse=True)


def _latest_snapshot(directory: Path) -> tuple[RunState, int]:
    for path in _snapshots(directory):
        with suppress(OSError, ValueError, KeyError, TypeError):
            _, state, offset = _read_snapshot(path, directory.name)
            return state, offset
    return RunState(), 0


def earliest_snapshot(directory: Path) -> tuple[RunState, int]:
    """Return how far the run had come at the oldest snapshot that is kept, and where the journal goes on after it.

    What follows it takes less than a second to read, and is ten minutes at least; all of it where there is none.
    """
    size = (directory / FILE).stat().st_size
    for path in reversed(_snapshots(directory)):
        with suppress(OSError, ValueError, KeyError, TypeError):
            _, state, offset = _read_snapshot(path, directory.name)
            if offset <= size:
                return state, offset
    return RunState(), 0


def _read_snapshot(path: Path, run: str) -> tuple[bytes, RunState, int]:
    """Return description, state and place in the journal; raises ValueError, KeyError or TypeError where damaged."""
    with path.open("rb") as file:
        record = _only(file, run)
    content, blob = unpacked(record.payload)
    whole = None if content["whole"] is None else window_of(content["whole"], blob)
    return content["description"].encode(), RunState.from_json(content["state"], whole), int(content["offset"])


def _only(file: BinaryIO, run: str) -> Framed:
    for record in records(file, run):
        return record
    raise ValueError("no whole record")


def _unusable(path: Path, error: OSError) -> JournalError:
    return JournalError(
        f"The journal {path} cannot be used: {error.strerror or error}.",
        "Make room on that disk and permit reading and writing there, then start again.",
    )
