"""From windows to what models learn from: one row for each window, without the windows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.models.features.encoding import encode_knobs
from ml_postgres_optimization.models.features.extraction import window_features
from ml_postgres_optimization.models.features.summary import NAN, WindowSummary, summarise
from ml_postgres_optimization.models.observation import Observation
from ml_postgres_optimization.retry.classification import ErrorClass
from ml_postgres_optimization.telemetry import Window

Floats = NDArray[np.float64]
ERROR_CLASSES = tuple(ErrorClass)
_GAP_RATIO = 0.1  # of a window's length: what may lie between two adjacent ones, for the clock's sake


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """What models learn from: one row for each observation, in the order of time.

    It holds about 1 KB a row, where a window with its histograms holds hundreds: a long history is kept like this.

    Parameters
    ----------
    names : tuple of str
        Of the features, see `FEATURES`.
    matrix : ndarray of float32, shape (n_windows, n_features)
        NaN for what was not seen.
    started_at, ended_at : ndarray of float64, shape (n_windows,)
        Seconds since 1970 in UTC.
    log_mean, next_log_mean : ndarray of float64, shape (n_windows,)
        Natural log of the mean response in seconds, in the window and in the one that followed under the same
        configuration; NaN where there was none.
    errors, next_errors : ndarray of float32, shape (n_windows, n_classes)
        1 where an error of the class of `ERROR_CLASSES` occurred, 0 where none did, NaN where that cannot be known.
    """

    names: tuple[str, ...]
    matrix: NDArray[np.float32]
    started_at: Floats
    ended_at: Floats
    log_mean: Floats
    next_log_mean: Floats
    errors: NDArray[np.float32]
    next_errors: NDArray[np.float32]

    @classmethod
    def of(cls, history: Iterable[Observation] | Table) -> Table:
        """Make the table of observations, which are read once, one after the other; a table stays itself."""
        if isinstance(history, Table):
            return history
        rows = list(_rows(history))
        names = tuple(sorted({name for row in rows for name in row.names}))
        parts: list[NDArray[Any]] = [np.array([getattr(row, part) for row in rows]) for part in _NUMBERS]
        for part in _CLASSES:
            occurred = np.array([getattr(row, part) for row in rows], dtype=np.float32)
            parts.append(occurred.reshape(-1, len(ERROR_CLASSES)))
        table = cls(names, _aligned(rows, names), *parts)
        return table.rows(np.argsort(table.ended_at, kind="stable"))

    def __len__(self) -> int:
        return len(self.matrix)

    def rows(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> Table:
        """Return the table of the chosen rows: a mask, or their numbers."""
        return Table(self.names, self.matrix[chosen], *(getattr(self, part)[chosen] for part in _NUMBERS + _CLASSES))

    def columns(self, names: Sequence[str]) -> NDArray[np.float32]:
        """Return the features of these names, in their order; NaN for one that this table lacks."""
        return _placed(self.matrix, self.names, names)

    @classmethod
    def joined(cls, tables: Sequence[Table]) -> Table:
        """Put tables together, in the order of time; a knob that one lacks is NaN there."""
        names = tuple(sorted({name for table in tables for name in table.names}))
        if not tables:
            return cls.of(())
        parts = (np.concatenate([getattr(table, part) for table in tables]) for part in _NUMBERS + _CLASSES)
        table = cls(names, np.concatenate([table.columns(names) for table in tables]), *parts)
        return table.rows(np.argsort(table.ended_at, kind="stable"))

    @property
    def digest(self) -> str:
        """SHA-256 of everything in it."""
        digest = hashlib.sha256("\0".join(self.names).encode())
        for part in ("matrix", *_NUMBERS, *_CLASSES):
            digest.update(np.ascontiguousarray(getattr(self, part)).tobytes())
        return digest.hexdigest()


_NUMBERS = ("started_at", "ended_at", "log_mean", "next_log_mean")
_CLASSES = ("errors", "next_errors")


def feature_matrix(history: Iterable[Observation]) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Return the features of all observations, in the order of time, and their names.

    Returns
    -------
    matrix : ndarray of float32, shape (n_windows, n_features)
    names : tuple of str
    """
    table = Table.of(history)
    return table.matrix, table.names


def observations(windows: Iterable[Window], configurations: Mapping[str, Configuration]) -> list[Observation]:
    """Join the windows of each run in the order of time.

    A window before or after is joined only when it is of the same server, of the same run (label ``run``) and
    adjacent. Windows whose configuration is not among `configurations` are left out.
    """
    return list(stream_observations(sorted(windows, key=lambda window: window.started_at), configurations))


def stream_observations(
    windows: Iterable[Window], configurations: Mapping[str, Configuration]
) -> Iterator[Observation]:
    """Join windows that come in the order of time, holding no more than two of each run.

    ``Table.of(stream_observations(…))`` turns any number of windows into a table in little memory.
    """
    waiting: dict[tuple[str | None, str | None], tuple[Window, Window | None]] = {}
    for window in windows:
        run = window.server, window.labels.get("run")
        last, before_last = waiting.get(run, (None, None))
        follows = last is not None and _are_adjacent(last, window)
        if last is not None and last.configuration_id in configurations:
            following = window if follows else None
            yield Observation(configurations[last.configuration_id], last, before_last, following)
        waiting[run] = (window, last if follows else None)
    for last, before_last in waiting.values():
        if last.configuration_id in configurations:
            yield Observation(configurations[last.configuration_id], last, before_last)


def _are_adjacent(earlier: Window, later: Window) -> bool:
    gap_seconds = (later.started_at - earlier.ended_at).total_seconds()
    return abs(gap_seconds) <= _GAP_RATIO * earlier.duration_seconds


@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    names: tuple[str, ...]
    values: NDArray[np.float32]
    started_at: float
    ended_at: float
    log_mean: float
    next_log_mean: float
    errors: tuple[float, ...]
    next_errors: tuple[float, ...]


class _Encoder:
    """Remember what neighbours share, so that each histogram is read once and each configuration encoded once."""

    _REMEMBERED = 64

    def __init__(self) -> None:
        # the window is kept beside its summary, so that its id is not given to another
        self._summaries: dict[int, tuple[Window, WindowSummary]] = {}
        self._knobs: dict[Configuration, dict[str, float]] = {}
        self._names: dict[tuple[str, ...], tuple[str, ...]] = {}

    def summary(self, window: Window) -> WindowSummary:
        """Return the summary of a window."""
        if id(window) not in self._summaries:
            while len(self._summaries) >= self._REMEMBERED:
                del self._summaries[next(iter(self._summaries))]
            self._summaries[id(window)] = (window, summarise(window))
        return self._summaries[id(window)][1]

    def knobs(self, configuration: Configuration) -> dict[str, float]:
        """Return the features of a configuration."""
        if configuration not in self._knobs:
            self._knobs[configuration] = encode_knobs(configuration)
        return self._knobs[configuration]

    def row(self, observation: Observation) -> _Row:
        """Return the row of an observation."""
        window, following = observation.window, observation.following
        summary = self.summary(window)
        before = None if observation.previous is None else self.summary(observation.previous)
        named = window_features(observation, summary, before) | self.knobs(observation.configuration)
        # what came after a change of configuration is no consequence of this one
        is_comparable = following is not None and following.configuration_id == window.configuration_id
        after = self.summary(following) if following is not None and is_comparable else None
        return _Row(
            self._names.setdefault(tuple(named), tuple(named)),
            _finite(np.fromiter(named.values(), np.float64, len(named))),
            window.started_at.timestamp(),
            window.ended_at.timestamp(),
            summary.log_mean,
            NAN if after is None else after.log_mean,
            _occurred(summary),
            _occurred(after),
        )


def _rows(history: Iterable[Observation]) -> Iterator[_Row]:
    encoder = _Encoder()
    for observation in history:
        yield encoder.row(observation)


def _occurred(summary: WindowSummary | None) -> tuple[float, ...]:
    seen = {} if summary is None else summary.failures
    return tuple(float(seen[name] > 0) if name in seen else NAN for name in ERROR_CLASSES)


def _finite(values: Floats) -> NDArray[np.float32]:
    """Return values as trees take them: what is infinite, or too large for 32 bits, is as good as not seen."""
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    narrow[~np.isfinite(narrow)] = np.nan
    return narrow


def _aligned(rows: Sequence[_Row], names: Sequence[str]) -> NDArray[np.float32]:
    """Return one matrix of rows that may differ in their knobs."""
    matrix = np.full((len(rows), len(names)), np.nan, dtype=np.float32)
    by_names: dict[tuple[str, ...], list[int]] = {}
    for number, row in enumerate(rows):
        by_names.setdefault(row.names, []).append(number)
    for own_names, numbers in by_names.items():
        stacked = np.stack([rows[number].values for number in numbers])
        matrix[numbers] = _placed(stacked, own_names, names)
    return matrix


def _placed(matrix: NDArray[np.float32], own_names: Sequence[str], names: Sequence[str]) -> NDArray[np.float32]:
    """Return the columns `names` of a matrix whose columns are `own_names`."""
    place = {name: column for column, name in enumerate(own_names)}
    placed = np.full((len(matrix), len(names)), np.nan, dtype=np.float32)
    for column, name in enumerate(names):
        if name in place:
            placed[:, column] = matrix[:, place[name]]
    return placed
