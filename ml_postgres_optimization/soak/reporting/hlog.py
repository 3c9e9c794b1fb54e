"""Histograms over time in HdrHistogram's log format, which many tools read.

Own code: the Python package that reads it (hdrhistogram 0.10.8, by which the tests read back what is written here)
brings setuptools and pbr along, and cuts the maximum of an interval to whole units.
"""

from __future__ import annotations

import base64
import struct
import zlib
from datetime import datetime
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from ml_postgres_optimization.telemetry import Histogram
from ml_postgres_optimization.telemetry.histogram import bucket_middles_seconds

# Microseconds, to three hours, with three figures: no coarser than our own buckets.
_LOWEST, _HIGHEST, _FIGURES = 1, 3 * 3600 * 1_000_000, 3
_HALF_MAGNITUDE = 10  # 2 · 10³ rounded up to a power of two is 2¹¹ sub-buckets, half of which a bucket adds
_HALF = 1 << _HALF_MAGNITUDE
# HdrHistogram's encodings, version 2: https://github.com/HdrHistogram/HdrHistogram (AbstractHistogram.java).
_COOKIE, _COMPRESSED_COOKIE = 0x1C849303 | 0x10, 0x1C849304 | 0x10
_MAXIMUM_PER_MICROSECOND = 1000.0  # the third column is in milliseconds


class HistogramLog:
    """Write one histogram after the other.

    Parameters
    ----------
    file : text stream
    started_at : datetime
        Aware; the times of the intervals count from it.
    comment : str
        One line that says what was measured.
    """

    def __init__(self, file: TextIO, started_at: datetime, comment: str) -> None:
        self._file = file
        stamp = started_at.timestamp()
        self._file.write(
            f"#[{' '.join(comment.split())}]\n"
            "#[Histogram log format version 1.3]\n"
            f"#[StartTime: {stamp:.3f} (seconds since epoch), {started_at.isoformat()}]\n"
            f"#[BaseTime: {stamp:.3f} (seconds since epoch)]\n"
            '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"\n'
        )

    def write(self, start_seconds: float, length_seconds: float, histogram: Histogram) -> None:
        """Add an interval that begins `start_seconds` after the start."""
        maximum = histogram.max_seconds * 1e6 / _MAXIMUM_PER_MICROSECOND
        self._file.write(f"{start_seconds:.3f},{length_seconds:.3f},{maximum:.3f},{encoded(histogram)}\n")


def encoded(histogram: Histogram) -> str:
    """Return a histogram in HdrHistogram's compressed form, base64; values in microseconds.

    A bucket of ours is written as its middle, as quantiles are read from it; those above three hours count as three.
    """
    filled = np.flatnonzero(histogram.counts)
    microseconds = np.clip(np.rint(bucket_middles_seconds()[filled] * 1e6), _LOWEST, _HIGHEST).astype(np.int64)
    places = _places(microseconds)
    counts = np.bincount(places, weights=histogram.counts[filled]).astype(np.int64)
    payload = _zigzag(counts)
    header = struct.pack(">iiiiqqd", _COOKIE, len(payload), 0, _FIGURES, _LOWEST, _HIGHEST, 1.0)
    compressed = zlib.compress(header + payload, 6)
    return base64.b64encode(struct.pack(">ii", _COMPRESSED_COOKIE, len(compressed)) + compressed).decode("ascii")


def _places(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return HdrHistogram's index of each value."""
    bits = np.frexp(values.astype(np.float64))[1].astype(np.int64)
    bucket = np.maximum(bits - (_HALF_MAGNITUDE + 1), 0)
    places: NDArray[np.int64] = bucket * _HALF + (values >> bucket)
    return places


def _zigzag(counts: NDArray[np.int64]) -> bytes:
    """Return counts as ZigZag LEB128, a run of zeros as one negative number."""
    written = bytearray()
    zeros = 0
    for count in counts.tolist():
        if count == 0:
            zeros += 1
            continue
        if zeros:
            written += _leb128(2 * zeros - 1)
            zeros = 0
        written += _leb128(2 * count)
    return bytes(written)


def _leb128(value: int) -> bytes:
    """Return seven bits a byte; a ninth one would hold eight, which counts of ours never need."""
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)
