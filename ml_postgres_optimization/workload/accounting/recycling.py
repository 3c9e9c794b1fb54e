"""Our own tables kept to a size, however long the load runs."""

from __future__ import annotations

from psycopg import Connection, sql
from psycopg.rows import TupleRow

from ml_postgres_optimization.workload.accounting.ledger import Ledger
from ml_postgres_optimization.workload.statements import query
from ml_postgres_optimization.workload.tables import EVENTS_AT_SCALE_1, OPERATIONS_AT_SCALE_1

# In one transaction at each interval: more than 10 s of any load of ours brings, and short enough for nobody to wait.
_MOST_AT_ONCE = 50_000
_GROWTH_KEPT = 2.0


class Recycling:
    """Delete the oldest rows that the load has brought, beyond twice the tables' first size.

    Parameters
    ----------
    ledger : Ledger
        In whose session it is done.
    scale : float
        Of the tables.
    """

    def __init__(self, ledger: Ledger, scale: float) -> None:
        self._ledger = ledger
        self._kept = {
            ("event_log", "event_id"): int(EVENTS_AT_SCALE_1 * scale * _GROWTH_KEPT),
            ("operations", "operation_id"): int(OPERATIONS_AT_SCALE_1 * scale * _GROWTH_KEPT),
        }
        self._low: dict[str, int] = {}

    def run(self) -> int:
        """Delete what is too much, some of it at each call, and return how many rows that were.

        Raises
        ------
        ServerUnreachable, TargetError
        """

        def recycled(connection: Connection[TupleRow]) -> int:
            return sum(self._recycle(connection, *names, kept) for names, kept in self._kept.items())

        return int(self._ledger.run(recycled, "recycle the tables of the load"))

    def _recycle(self, connection: Connection[TupleRow], table: str, key: str, kept: int) -> int:
        names = {"table": sql.Identifier("genesis_load", table), "key": sql.Identifier(key)}
        row = connection.execute(sql.SQL(query("accounting/extent")).format(**names)).fetchone()
        first, last = row or (0, 0)
        low = max(self._low.get(table, first), first)
        high = min(last - kept, low + _MOST_AT_ONCE)
        if high <= low:
            return 0
        deleted = connection.execute(
            sql.SQL(query("accounting/recycle")).format(**names), {"low": low, "high": high}
        ).rowcount
        self._low[table] = high
        return deleted
