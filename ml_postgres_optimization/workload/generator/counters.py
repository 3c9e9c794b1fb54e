"""What the load has done so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce

import numpy as np

from ml_postgres_optimization.telemetry import SampleBatch
from ml_postgres_optimization.workload.process.messages import Report


@dataclass(frozen=True, slots=True)
class LoadCounters:
    """What the load has done since its start.

    Parameters
    ----------
    due_total : int
        Operations that came due. Once the load has stopped, it is the sum of the next three.
    succeeded_total, failed_total, skipped_total : int
        Skipped: due and never started, or lost with a client process.
    ambiguous_total : int
        Of the failed ones, those that may have been committed all the same.
    retried : mapping of str to int
        Attempts that failed and were followed by another one, by SQLSTATE.
    connections_lost_total : int
        Connections that broke while open.
    connection_failures : mapping of str to int
        Attempts to connect that failed, by SQLSTATE.
    died_total, restarts_total : int
        Client processes that died, and that were started in their place. What they had not reported is lost, so the
        interval in which it happened is void.
    garbage_seconds_total : float
        That the client processes' collectors of garbage took.
    """

    due_total: int = 0
    succeeded_total: int = 0
    failed_total: int = 0
    skipped_total: int = 0
    ambiguous_total: int = 0
    retried: Mapping[str, int] = field(default_factory=dict)
    connections_lost_total: int = 0
    connection_failures: Mapping[str, int] = field(default_factory=dict)
    died_total: int = 0
    restarts_total: int = 0
    garbage_seconds_total: float = 0.0

    def __add__(self, other: LoadCounters) -> LoadCounters:
        return LoadCounters(
            due_total=self.due_total + other.due_total,
            succeeded_total=self.succeeded_total + other.succeeded_total,
            failed_total=self.failed_total + other.failed_total,
            skipped_total=self.skipped_total + other.skipped_total,
            ambiguous_total=self.ambiguous_total + other.ambiguous_total,
            retried=_added(self.retried, other.retried),
            connections_lost_total=self.connections_lost_total + other.connections_lost_total,
            connection_failures=_added(self.connection_failures, other.connection_failures),
            died_total=self.died_total + other.died_total,
            restarts_total=self.restarts_total + other.restarts_total,
            garbage_seconds_total=self.garbage_seconds_total + other.garbage_seconds_total,
        )

    @classmethod
    def of(cls, report: Report) -> LoadCounters:
        """Count what one report says."""
        failed = sum(int(np.count_nonzero(batch.sqlstate != b"")) for batch in report.batches)
        return cls(
            due_total=report.due_total,
            succeeded_total=report.ended_total - failed,
            failed_total=failed,
            skipped_total=report.skipped_total,
            ambiguous_total=sum(batch.ambiguous_total for batch in report.batches),
            retried=reduce(_added, (batch.retried for batch in report.batches)),
            connections_lost_total=report.connections_lost_total,
            connection_failures=report.connection_failures,
            garbage_seconds_total=report.garbage_seconds,
        )


def _added(first: Mapping[str, int], second: Mapping[str, int]) -> Mapping[str, int]:
    """Add counts by SQLSTATE; ten reports a second have none."""
    return Counter(first) + Counter(second) if first and second else first or second


def lost(operations_total: int) -> SampleBatch:
    """Return a batch that only says how many operations nobody will hear of again."""
    return SampleBatch(
        kinds=(),
        kind_index=np.empty(0, dtype=np.uint8),
        intended_start_seconds=np.empty(0),
        start_seconds=np.empty(0),
        end_seconds=np.empty(0),
        sqlstate=np.empty(0, dtype="S5"),
        skipped_total=operations_total,
        due_total=0,
    )
