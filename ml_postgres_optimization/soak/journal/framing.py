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
# What looks like a record in damage, and is none, is read for nothing. Of 32-bit marks in compressed bytes there is
# one in 4 GB by chance; a file full of them was made to be read for ever.
_WASTE_RATIO = 4


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
    damage. Of damage no more than some four times its length and 8 MB is read: a record in or right after it that
    is longer than what is left of that is passed over.
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


def _at(file: BinaryIO, position: int, run: str, *, most: int = MAXIMUM_BYTES) -> Framed | None:
    """Return the whole record at a position; None where there is none, or it is longer than `most`."""
    file.seek(position)
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    magic, kind, length, checksum = _HEADER.unpack(header)
    if magic != MAGIC or length > min(most, MAXIMUM_BYTES) or kind not in _KINDS:
        return None
    payload = file.read(length)
    if len(payload) < length or _checksum(kind, payload, run) != checksum:
        return None
    return Framed(position, position + _HEADER.size + length, RecordKind(kind), payload)


def _following(file: BinaryIO, position: int, run: str) -> Framed | None:
    """Return the first whole record at or after a position."""
    begin, wasted = position, 0
    while True:
        file.seek(position)
        chunk = file.read(_CHUNK_BYTES)
        place = chunk.find(MAGIC)
        while place >= 0:
            at = position + place
            affordable = MAXIMUM_BYTES + _WASTE_RATIO * (at - begin) - wasted
            if found := _at(file, at, run, most=affordable):
                return found
            wasted += file.tell() - at
            place = chunk.find(MAGIC, place + 1)
        if len(chunk) < _CHUNK_BYTES:
            return None
        position += len(chunk) - len(MAGIC) + 1
