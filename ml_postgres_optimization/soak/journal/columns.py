"""Windows as bytes: histograms and figures in columns, since a soak keeps some 26,000 of them."""

from __future__ import annotations

import heapq
import json
import lzma
import struct
import zlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml_postgres_optimization.telemetry import Histogram, OperationWindow, StatementCounters, StatementKey, Window

# Of the JSON, compressed. Behind it lies a queue of bytes; every histogram takes from it what it has put there.
_LENGTH = struct.Struct("<I")
# A snapshot of days has some 100 kB: what unpacks to more was made to fill the memory.
_MOST_BYTES = 16 << 20
# Counts are hardly ever repeated in a row, and what LZMA expects after the one before makes columns a fifth shorter
# than zlib does, for 4 ms an interval. It cannot be told the names that JSON refers to; and most of JSON is names.
_COLUMNS = ({"id": lzma.FILTER_LZMA1, "dict_size": 1 << 16, "lc": 4, "pb": 0},)
_WIDTHS = ("<u1", "<u2", "<u4", "<u8")
_MOST_STATEMENTS = 20
# Divided by the window's length they are whole numbers again, which single precision would not give back.
_EXACT = ("load.due_per_second",)
_FIELDS = StatementCounters.__slots__


@cache
def _names() -> bytes:
    """Return names that nearly every record refers to; changing them makes another format of the journal."""
    return (files(__package__) / "names.txt").read_bytes()


def packed(content: Mapping[str, Any], blob: bytes = b"") -> bytes:
    """Return JSON and bytes behind it, both compressed."""
    packing = zlib.compressobj(zdict=_names())
    text = packing.compress(json.dumps(content, separators=(",", ":")).encode()) + packing.flush()
    return _LENGTH.pack(len(text)) + text + lzma.compress(blob, lzma.FORMAT_RAW, filters=_COLUMNS)


def unpacked(payload: bytes) -> tuple[dict[str, Any], bytes]:
    """Return what `packed` was given.

    Raises
    ------
    ValueError
        If it is nothing of that kind.
    """
    try:
        (length,) = _LENGTH.unpack_from(payload)
        inflating = zlib.decompressobj(zdict=_names())
        content = json.loads(inflating.decompress(payload[_LENGTH.size : _LENGTH.size + length], _MOST_BYTES))
        expanding = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_COLUMNS)
        blob = expanding.decompress(payload[_LENGTH.size + length :], _MOST_BYTES)
    except (zlib.error, lzma.LZMAError, struct.error, RecursionError) as error:
        raise ValueError(str(error)) from error
    if not (inflating.eof and expanding.eof):
        raise ValueError(f"a record is cut short, or of more than {_MOST_BYTES:,} bytes")
    if not isinstance(content, dict):
        raise ValueError("a record is no mapping")
    return content, blob


def window_columns(window: Window) -> tuple[dict[str, Any], bytes]:
    """Return a window as JSON-ready figures and the bytes of its columns.

    Rates, gauges and waits have single precision (7 digits); histograms and counts are exact. Of the queries, the 20
    that took most time are kept.
    """
    figures = [window.rates, window.gauges, window.waits]
    blob = [np.array([*each.values()], dtype="<f4").tobytes() for each in figures]
    kinds = sorted(window.operations)
    for kind in kinds:
        blob += [_histogram(window.operations[kind].response), _histogram(window.operations[kind].service)]
    blob.append(_histogram(window.lag))
    return {
        "at": [window.started_at.isoformat(), window.ended_at.isoformat()],
        "configuration": window.configuration_id,
        "labels": dict(window.labels),
        "names": [[*each] for each in figures],
        "exact": {name: window.rates[name] for name in _EXACT if name in window.rates},
        "kinds": {kind: window.operations[kind].failed_total for kind in kinds},
        "errors": dict(window.errors),
        "skipped": window.skipped_total,
        "retried": dict(window.retried),
        "ambiguous": window.ambiguous_total,
        "statements": _statements(window.statements),
        "unseen": dict(window.unseen),
    }, b"".join(blob)


def window_of(content: Mapping[str, Any], blob: bytes) -> Window:
    """Rebuild the window that `window_columns` was given.

    Raises
    ------
    ValueError, KeyError, TypeError, IndexError, OverflowError
        If the figures are none of a window.
    """
    columns = _Columns(blob)
    rates, gauges, waits = (columns.figures(names) for names in content["names"])
    operations = {
        kind: OperationWindow(columns.histogram(), columns.histogram(), failed)
        for kind, failed in content["kinds"].items()
    }
    started_at, ended_at = map(datetime.fromisoformat, content["at"])
    return Window(
        started_at,
        ended_at,
        content["configuration"],
        labels=content["labels"],
        rates=rates | content["exact"],
        gauges=gauges,
        waits=waits,
        operations=operations,
        lag=columns.histogram(),
        errors=content["errors"],
        skipped_total=content["skipped"],
        retried=content["retried"],
        ambiguous_total=content["ambiguous"],
        statements={(row[0], row[1], row[2]): StatementCounters(*row[3:]) for row in content["statements"]},
        unseen=content["unseen"],
    )


class _Columns:
    """Take columns from their bytes, one after the other."""

    def __init__(self, blob: bytes) -> None:
        self._blob = blob
        self._place = 0

    def figures(self, names: Iterable[str]) -> dict[str, float]:
        known = [*names]
        return dict(zip(known, self._take("<f4", len(known)).tolist(), strict=True))

    def histogram(self) -> Histogram:
        first, length, width = (int(value) for value in self._take("<u2", 3))
        sums = self._take("<f8", 2)
        return Histogram.from_json(
            {
                "buckets": np.arange(first, first + length),
                "counts": self._planes(width, length),
                "sum_seconds": sums[0],
                "max_seconds": sums[1],
            }
        )

    def _planes(self, width: int, count: int) -> NDArray[np.int64]:
        kind = np.dtype(_WIDTHS[width])
        bytes_of_each = self._take("u1", count * kind.itemsize).reshape(kind.itemsize, count).T
        return np.ascontiguousarray(bytes_of_each).view(kind).ravel().astype(np.int64)

    def _take(self, dtype: str, count: int) -> NDArray[Any]:
        taken = np.frombuffer(self._blob, dtype=dtype, count=count, offset=self._place)
        self._place += taken.nbytes
        return taken


def _histogram(histogram: Histogram) -> bytes:
    """Return all counts from the first bucket with any to the last; none in a row cost next to nothing."""
    filled = np.flatnonzero(histogram.counts)
    first, end = (int(filled[0]), int(filled[-1]) + 1) if len(filled) else (0, 0)
    counts = histogram.counts[first:end]
    width = _width(counts)
    return b"".join(
        (
            np.array([first, len(counts), width], dtype="<u2").tobytes(),
            np.array([histogram.sum_seconds, histogram.max_seconds], dtype="<f8").tobytes(),
            _planes(counts, width),
        )
    )


def _planes(values: NDArray[np.int64], width: int) -> bytes:
    """Return all first bytes, then all second ones: the second are nearly all zero, and cost next to nothing."""
    each = values.astype(_WIDTHS[width])
    return each.view("u1").reshape(len(values), each.itemsize).T.tobytes()


def _width(values: NDArray[np.int64]) -> int:
    largest = int(values.max(initial=0))
    return next(place for place in range(len(_WIDTHS)) if largest < 1 << (8 << place))


def _statements(statements: Mapping[StatementKey, StatementCounters]) -> list[list[float]]:
    """Return the queries that took most of the time; how many there are is the user's affair."""
    most = heapq.nlargest(
        _MOST_STATEMENTS, statements.items(), key=lambda item: (item[1].execution_seconds_total, item[0])
    )
    return [[*key, *(_short(getattr(counters, name)) for name in _FIELDS)] for key, counters in sorted(most)]


def _short(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.7g}")
