"""What the simulated load does to the counters of the server."""

from __future__ import annotations

from collections.abc import Mapping

from ml_postgres_optimization.knobs.knob import KnobValue

WRITE_RATIO = 0.3
WAL_BYTES_PER_WRITE = 300
_BLOCKS_PER_OPERATION = 20
# a cache of the best size of `surface` misses nothing, one 32 times smaller misses a tenth
_MISS_RATIO = 0.1
_BEST_BUFFERS = 4 * 1024**3 // 8192
# sorts that need up to 32 MB, one operation in a hundred
_SORT_KIB = 32 * 1024
_SORT_RATIO = 0.01


def growth(configuration: Mapping[str, KnobValue], operations: int) -> dict[str, float]:
    """Return how far `operations` move each counter: more misses with few buffers, more spills with little work_mem.

    Parameters
    ----------
    configuration : mapping of str to bool, int, float or str
        In force while they ran; base units.
    operations : int
    """
    blocks = operations * _BLOCKS_PER_OPERATION
    missed = blocks * _MISS_RATIO * max(0.0, 1 - float(configuration["shared_buffers"]) / _BEST_BUFFERS)
    spilled_kib = operations * _SORT_RATIO * max(0.0, _SORT_KIB - float(configuration["work_mem"]))
    writes = operations * WRITE_RATIO
    wal_bytes = writes * WAL_BYTES_PER_WRITE
    return {
        "database.commits_total": float(operations),
        "database.rollbacks_total": 0.0,
        "database.hit_blocks_total": blocks - missed,
        "database.read_blocks_total": missed,
        "database.temp_bytes_total": spilled_kib * 1024,
        "database.updated_tuples_total": writes,
        "cluster.commits_total": float(operations),
        "cluster.transaction_ids_total": writes,
        "wal.generated_bytes_total": wal_bytes,
        "checkpointer.requested_checkpoints_total": wal_bytes / (float(configuration["max_wal_size"]) * 1024**2),
    }
