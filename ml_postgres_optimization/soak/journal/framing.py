"""Records in a file: each with its length and checksum, so that what a crash has left is known for what it is."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import BinaryIO

MAGIC = b"\x93GSK"
_HEADER = struct.Struct("<4sBII")
# Far above the largest interval (some 30 kB): a length beyond it is damage, and is not believed.
MAXIMUM_BYTES = 8 << 20
_CHUNK_BYTES = 1 << 20


class RecordKind(IntEnum):
    """What a record tells."""

    RUN = 1
    """The first of a file: what run it is."""
    EPOCH = 2
    """A runner takes the run over."""
    INTERVAL = 3
    END = 4
    """A runner leaves the run in good order."""


_KINDS = frozenset(int(kind) for kind in RecordKind)


@dataclass(frozen=True, slots=True)
class Framed:
    """A record as it lies in the file.

    Parameters
    ----------
    offset, end : int
        Where it begins, and where the next one does.
    kind : RecordKind
    payload : bytes
    damaged_before : int
        Bytes between the record before and this one that are no record.
    """

    offset: int
    end: int
    kind: RecordKind
    payload: bytes
    damaged_before: int = 0


def framed(kind: RecordKind, payload: bytes, run: str) -> bytes:
    """Return a record's bytes; the checksum is the run's own, so that a record of another run is none here."""
    return _HEADER.pack(MAGIC, kind, len(payload), _checksum(kind, payload, run)) + payload


def records(file: BinaryIO, run: str, offset: int = 0) -> Iterator[Framed]:
    """Yield the whole records from `offset` on, past damage where whole records follow it.

    What comes after the last one yielded is a torn tail. Memory: one record, and a chunk of 1 MB where there is
    damage.
    """
    position = offset
    while True:
        found, damaged = _at(file, position, run), 0
        if found is None:
            found = _following(file, position + 1, run)
            if found is None:
                return
            damaged = found.offset - position
        yield Framed(found.offset, found.end, found.kind, found.payload, damaged)
        position = found.end


def _checksum(kind: int, payload: bytes, run: str) -> int:
    # PostgreSQL's own WAL has CRC-32C; zlib's CRC-32 detects the same bursts, and is in the standard library
    return zlib.crc32(payload, zlib.crc32(bytes((kind,)) + run.encode()))


def _at(file: BinaryIO, position: int, run: str) -> Framed | None:
    """Return the whole record at a position; None where there is none."""
    file.seek(position)
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    magic, kind, length, checksum = _HEADER.unpack(header)
    if magic != MAGIC or length > MAXIMUM_BYTES or kind not in _KINDS:
        return None
    payload = file.read(length)
    if len(payload) < length or _checksum(kind, payload, run) != checksum:
        return None
    return Framed(position, position + _HEADER.size + length, RecordKind(kind), payload)


def _following(file: BinaryIO, position: int, run: str) -> Framed | None:
    """Return the first whole record at or after a position."""
    while True:
        file.seek(position)
        chunk = file.read(_CHUNK_BYTES)
        place = chunk.find(MAGIC)
        while place >= 0:
            if found := _at(file, position + place, run):
                return found
            place = chunk.find(MAGIC, place + 1)
        if len(chunk) < _CHUNK_BYTES:
            return None
        position += len(chunk) - len(MAGIC) + 1
