"""The figures of which drift and growth are asked: what they are called, and which way is worse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml_postgres_optimization.soak.figures.columns import Columns


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure that is watched over a run.

    Parameters
    ----------
    title : str
    columns : tuple of str
        Of `Columns`; the first that was measured counts, from the beginning of the run to its end.
    unit : str
        ``seconds``, ``bytes``, ``per second``, ``bytes per row``.
    worse : int
        1 where more is worse, −1 where less is.
    is_stock : bool
        Whether it is an amount of something that is there (memory, disk) rather than what happened in a while: it
        grows by bytes and not by ratios, and does not follow the load of the minute.
    per : tuple of str
        For each of `columns` the one by which it is divided; empty where none is.
    """

    title: str
    columns: tuple[str, ...]
    unit: str
    worse: int = 1
    is_stock: bool = False
    per: tuple[str, ...] = ()

    def values(self, columns: Columns) -> NDArray[np.float64]:
        """Return the figure in each slot, shape (slots,); NaN where it was not measured."""
        place = next((place for place, name in enumerate(self.columns) if name in columns), 0)
        found = columns.column(self.columns[place])
        if not self.per:
            return found
        divisor = columns.column(self.per[place])
        return np.divide(found, divisor, out=np.full_like(found, np.nan), where=divisor > 0)


OFFERED = Metric("offered load", ("load.offered",), "per second")
CLIENT_MEMORY = Metric("client memory", ("resource.client.rss_bytes",), "bytes", is_stock=True)
# What the server's processes have for themselves, where they can be seen: shared memory fills up, and does not leak.
# Else what its control group says; page cache is in that.
SERVER_MEMORY = Metric(
    "server memory", ("resource.server.private_bytes", "gauge.host.cgroup_memory_bytes"), "bytes", is_stock=True
)
# The tables of our own load alone: in those of the whole database our records grow.
BLOAT = Metric(
    "size per live row",
    ("resource.load_tables.total_bytes",),
    "bytes per row",
    is_stock=True,
    per=("resource.load_tables.live_tuples",),
)
METRICS: Mapping[str, Metric] = {
    "mean": Metric("mean response", ("response.mean",), "seconds"),
    "p50": Metric("p50 response", ("response.p50",), "seconds"),
    "p95": Metric("p95 response", ("response.p95",), "seconds"),
    "p99": Metric("p99 response", ("response.p99",), "seconds"),
    "p99_9": Metric("p99.9 response", ("response.p99_9",), "seconds"),
    "throughput": Metric("throughput", ("load.succeeded",), "per second", worse=-1),
    "client_memory": CLIENT_MEMORY,
    "server_memory": SERVER_MEMORY,
    "bloat": BLOAT,
    "wal": Metric("WAL", ("rate.wal.generated_bytes_per_second",), "bytes per second"),
}
DEFAULT_DRIFT_METRICS = ("mean", "p99", "p99_9", "throughput")
