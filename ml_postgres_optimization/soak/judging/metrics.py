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
        Of `Columns`; the first that was measured counts.
    unit : str
        ``seconds``, ``bytes``, ``per second``, ``bytes per row``.
    worse : int
        1 where more is worse, −1 where less is.
    is_stock : bool
        Whether it is an amount of something that is there (memory, disk) rather than what happened in a while: it
        grows by bytes and not by ratios, and does not follow the load of the minute.
    per : str or None
        Column by which it is divided.
    """

    title: str
    columns: tuple[str, ...]
    unit: str
    worse: int = 1
    is_stock: bool = False
    per: str | None = None

    def values(self, columns: Columns) -> NDArray[np.float64]:
        """Return the figure in each slot, shape (slots,); NaN where it was not measured."""
        present = [name for name in self.columns if name in columns]
        found = columns.column(present[0] if present else self.columns[0])
        if self.per is None:
            return found
        divisor = columns.column(self.per)
        return np.divide(found, divisor, out=np.full_like(found, np.nan), where=divisor > 0)


OFFERED = Metric("offered load", ("load.offered",), "per second")
CLIENT_MEMORY = Metric(
    "client memory", ("resource.client.rss_bytes", "resource.client.pss_bytes"), "bytes", is_stock=True
)
# The server's own processes where they could be seen, else what its control group says; page cache is in the latter.
SERVER_MEMORY = Metric(
    "server memory",
    (
        "gauge.backends.pss_bytes",
        "gauge.server.pss_bytes",
        "gauge.server.rss_bytes",
        "resource.server.pss_bytes",
        "resource.server.rss_bytes",
        "gauge.host.cgroup_memory_bytes",
    ),
    "bytes",
    is_stock=True,
)
BLOAT = Metric(
    "size per live row",
    ("gauge.tables.total_bytes", "gauge.tables.estimated_bytes"),
    "bytes per row",
    is_stock=True,
    per="gauge.tables.live_tuples",
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
