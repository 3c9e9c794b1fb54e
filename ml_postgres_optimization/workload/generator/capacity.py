"""How many operations a server can do when it is asked for as many as it can."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.workload.generator.load_generator import LoadGenerator
from ml_postgres_optimization.workload.plan import LoadPlan

# the first part of the time, in which caches fill and plans become generic
_WARM_UP_RATIO = 0.2


def measure_capacity(dsn: str, plan: LoadPlan, seconds: float) -> float:
    """Return how many operations per second succeed in a closed loop of `plan`.

    Parameters
    ----------
    dsn : str
    plan : LoadPlan
        Its rate is ignored.
    seconds : float
        How long to load; the first fifth is not counted.

    Raises
    ------
    UsageError
        If `seconds` is not positive.
    SchemaMissing, ServerUnreachable, AuthenticationFailed, PrivilegeMissing, SchemaForeign, TargetError
    """
    if not 0 < seconds <= 86_400:
        raise UsageError(f"The capacity cannot be measured in {seconds} s.", "Choose from just above 0 to 86,400 s.")
    with LoadGenerator(dsn, replace(plan, rate_per_second=None)) as load:
        time.sleep(seconds)
    first = load.started_at_seconds + seconds * _WARM_UP_RATIO
    last = load.started_at_seconds + seconds
    succeeded = 0
    for batch in load.samples():
        ended = batch.end_seconds
        succeeded += int(np.count_nonzero((ended >= first) & (ended < last) & (batch.sqlstate == b"")))
    return succeeded / (last - first)
