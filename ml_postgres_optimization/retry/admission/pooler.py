"""What a limit that was learnt means for a connection pooler."""

from __future__ import annotations

import math

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.retry.admission.limit import ConcurrencyLimit


def pgbouncer_lines(limit: ConcurrencyLimit, *, pools: int = 1) -> str:
    """Return lines for ``pgbouncer.ini`` that let in as many as the server was found to bear.

    Parameters
    ----------
    limit : ConcurrencyLimit
    pools : int
        Pairs of user and database, times the processes of PgBouncer: each has a pool of its own.

    Examples
    --------
    >>> print(pgbouncer_lines(ConcurrencyLimit(12), pools=2))
    ; 12 at a time in all, 2 pools
    default_pool_size = 6
    """
    if pools < 1:
        raise UsageError(f"{pools!r} pools are none.", "Give 1 or more.")
    size = max(1, math.floor(limit.settled / pools))
    return f"; {limit.settled} at a time in all, {pools} pools\ndefault_pool_size = {size}"
