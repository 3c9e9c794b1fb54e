"""From a line of the journal to its record: only what we could have written is believed."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ml_postgres_optimization.knobs.knob import KnobValue
from ml_postgres_optimization.safety.journal import records
from ml_postgres_optimization.safety.journal.records import KnobChange, Record, RecordKind, Terms

# All records of an older format are of the newer ones too: 2 has two kinds more, and 3 names of settings of roles.
_OLDEST_FORMAT = 1
_HEADER_BYTES = len(b"00000000 00000000 ")
# No setting of PostgreSQL's has more bits than that.
_LARGEST = 2**63


def decoded(line: bytes) -> Record:
    """Return the record of a line without its newline.

    Raises
    ------
    ValueError
        If it is not a whole record of a format that we know, or holds anything else than such a record does: whoever
        can write a file can also write a checksum that fits.
    """
    header, body = line[:_HEADER_BYTES], line[_HEADER_BYTES:]
    if header != b"%08d %08x " % (len(body), zlib.crc32(body)):
        raise ValueError("length or checksum do not fit")
    content = _mapping(_parsed(body))
    written = content.get("format")
    if type(written) is not int or not _OLDEST_FORMAT <= written <= records.FORMAT:
        raise ValueError(f"it is of format {written!r:.20}, and this program knows formats up to {records.FORMAT}")
    terms = content.get("terms")
    return Record(
        kind=RecordKind(_text(content.get("kind"))),
        trial_id=_text(content.get("trial")),
        at=datetime.fromisoformat(_text(content.get("at"))).isoformat(),
        pid=int(_number(content.get("pid"))),
        knobs=tuple(_knob(_mapping(knob)) for knob in _list(content.get("knobs", []))),
        foreign={_text(name): _text(said) for name, said in _mapping(content.get("foreign", {})).items()},
        terms=None if terms is None else _terms(_mapping(terms)),
        format=written,
    )


def _parsed(body: bytes) -> object:
    try:
        return json.loads(body)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _knob(content: Mapping[str, Any]) -> KnobChange:
    old_written = content.get("old_written")
    return KnobChange(
        name=_text(content.get("name")),
        old_written=None if old_written is None else _text(old_written),
        old_value=_value(content.get("old")),
        new_value=_value(content.get("new")),
    )


def _terms(content: Mapping[str, Any]) -> Terms:
    longest = content.get("longest_seconds")
    by = tuple(_text(one) for one in _list(content.get("by")))
    return Terms(by, _text(content.get("epoch")), math.inf if longest is None else float(_number(longest)))


def _value(content: object) -> KnobValue:
    if isinstance(content, bool):
        return content
    return _text(content) if isinstance(content, str) else _number(content)


def _mapping(content: object) -> Mapping[str, Any]:
    if not isinstance(content, dict):
        raise ValueError("something in it has no names")
    return content


def _list(content: object) -> list[Any]:
    if not isinstance(content, list):
        raise ValueError("something in it is no list")
    return content


def _number(content: object) -> int | float:
    if isinstance(content, bool) or not isinstance(content, int | float) or not abs(content) <= _LARGEST:
        raise ValueError("something in it is no number of PostgreSQL's")
    return content


def _text(content: object) -> str:
    """Return a text that PostgreSQL could hold: without NUL, and of whole characters."""
    if not isinstance(content, str) or "\0" in content:
        raise ValueError("something in it is no text of PostgreSQL's")
    content.encode()
    return content
