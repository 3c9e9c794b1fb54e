"""What the sessions of one arm have finished."""

from __future__ import annotations

from array import array
from collections import Counter

import numpy as np

from ml_postgres_optimization.telemetry import SampleBatch


class SampleBuffer:
    """Finished operations, kept in columns until they are taken; about 0.5 µs for each.

    Parameters
    ----------
    kinds : tuple of str
        Every kind of operation.
    keeps_lag : bool
        Whether operations are due by a clock, so that it means something to be late.
    arm : str
        Whose operations they are, where the sessions are divided.
    """

    def __init__(self, kinds: tuple[str, ...], *, keeps_lag: bool, arm: str = "") -> None:
        self._kinds = kinds
        self._keeps_lag = keeps_lag
        self._arm = arm
        self._clear()

    def record(
        self,
        kind_index: int,
        due_seconds: float,
        start_seconds: float,
        end_seconds: float,
        *,
        lag_seconds: float,
        sqlstate: bytes = b"",
        is_ambiguous: bool = False,
    ) -> None:
        """Keep one operation; times are monotonic, `sqlstate` is empty for success."""
        if sqlstate:
            self._sqlstates[len(self._kind_index)] = sqlstate
            if is_ambiguous:
                self._ambiguous.append(len(self._kind_index))
        self._kind_index.append(kind_index)
        self._due.append(due_seconds)
        self._start.append(start_seconds)
        self._end.append(end_seconds)
        self._lag.append(lag_seconds)

    def due(self, count: int) -> None:
        """Count operations that came due."""
        self._due_total += count

    def skip(self, count: int) -> None:
        """Count operations that were due and will not be started."""
        self._skipped_total += count

    def retry(self, sqlstate: bytes) -> None:
        """Count an attempt that failed so and is followed by another one."""
        self._retried[sqlstate.decode()] += 1

    def take(self) -> SampleBatch:
        """Return what was kept, and start anew."""
        ambiguous = np.zeros(len(self._kind_index) if self._ambiguous else 0, dtype=np.bool_)
        ambiguous[self._ambiguous] = True
        sqlstate = np.zeros(len(self._kind_index), dtype="S5")
        for row, code in self._sqlstates.items():
            sqlstate[row] = code
        batch = SampleBatch(
            kinds=self._kinds,
            kind_index=np.frombuffer(self._kind_index, dtype=np.uint8),
            intended_start_seconds=np.frombuffer(self._due),
            start_seconds=np.frombuffer(self._start),
            end_seconds=np.frombuffer(self._end),
            sqlstate=sqlstate,
            lag_seconds=np.frombuffer(self._lag) if self._keeps_lag else np.empty(0),
            skipped_total=self._skipped_total,
            due_total=self._due_total,
            arm=self._arm,
            ambiguous=ambiguous,
            retried=dict(self._retried),
        )
        self._clear()
        return batch

    def _clear(self) -> None:
        self._kind_index = bytearray()
        self._due = array("d")
        self._start = array("d")
        self._end = array("d")
        self._lag = array("d")
        self._sqlstates: dict[int, bytes] = {}
        self._ambiguous: list[int] = []
        self._retried: Counter[str] = Counter()
        self._skipped_total = 0
        self._due_total = 0
