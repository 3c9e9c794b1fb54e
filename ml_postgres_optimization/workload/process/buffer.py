"""Collect finished operations in columns."""

from __future__ import annotations

from array import array

import numpy as np

from ml_postgres_optimization.telemetry import SampleBatch
from ml_postgres_optimization.workload.operation import OperationKind

KINDS = tuple(kind.value for kind in OperationKind)


class SampleBuffer:
    """Finished operations, kept in columns until they are taken; about 0.5 µs for each.

    Parameters
    ----------
    keeps_lag : bool
        Whether operations are due by a clock, so that it means something to be late.
    """

    def __init__(self, *, keeps_lag: bool) -> None:
        self._keeps_lag = keeps_lag
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
    ) -> None:
        """Keep one operation; times are monotonic, `sqlstate` is empty for success."""
        if sqlstate:
            self._sqlstates[len(self._kind_index)] = sqlstate
        self._kind_index.append(kind_index)
        self._due.append(due_seconds)
        self._start.append(start_seconds)
        self._end.append(end_seconds)
        self._lag.append(lag_seconds)

    def skip(self, count: int) -> None:
        """Count operations that were due and will not be started."""
        self._skipped_total += count

    def take(self) -> SampleBatch:
        """Return what was kept, and start anew."""
        sqlstate = np.zeros(len(self._kind_index), dtype="S5")
        for row, code in self._sqlstates.items():
            sqlstate[row] = code
        batch = SampleBatch(
            kinds=KINDS,
            kind_index=np.frombuffer(self._kind_index, dtype=np.uint8),
            intended_start_seconds=np.frombuffer(self._due),
            start_seconds=np.frombuffer(self._start),
            end_seconds=np.frombuffer(self._end),
            sqlstate=sqlstate,
            lag_seconds=np.frombuffer(self._lag) if self._keeps_lag else np.empty(0),
            skipped_total=self._skipped_total,
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
        self._skipped_total = 0
