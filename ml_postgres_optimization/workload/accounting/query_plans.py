"""How the server would run the statements of the load now: seen without running them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import psycopg
from psycopg import Connection, sql
from psycopg.rows import TupleRow

from ml_postgres_optimization.errors import TargetError
from ml_postgres_optimization.workload.accounting.ledger import Ledger
from ml_postgres_optimization.workload.mix import Mix
from ml_postgres_optimization.workload.operation import OperationKind
from ml_postgres_optimization.workload.statements import query, statement_names

_HEX_DIGITS = 8


@dataclass(frozen=True, slots=True)
class QueryPlan:
    """The plan of a statement, without what it is estimated to cost.

    Parameters
    ----------
    lines : tuple of str
        As EXPLAIN writes them.

    Examples
    --------
    >>> plan = QueryPlan(("Update on accounts", "  ->  Seq Scan on accounts", "        Filter: (account_id = $1)"))
    >>> plan.hash, plan.nodes
    ('9a2d4dd1', 'Update on accounts, Seq Scan on accounts')
    """

    lines: tuple[str, ...]

    @property
    def hash(self) -> str:
        """The same for the same plan, on servers of one major version."""
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()[:_HEX_DIGITS]

    @property
    def nodes(self) -> str:
        """What it does, from the last step to the first, without conditions."""
        steps = [line.rpartition("->")[2].strip() for line in self.lines[1:] if "->" in line]
        return ", ".join([*self.lines[:1], *steps])


class QueryPlans:
    """Look at the plans that do not depend on parameters, which prepared statements of the load come to use.

    Parameters
    ----------
    ledger : Ledger
        In whose session it is done.
    mix : Mix
        Of our own kinds; looked at is what those that have a share consist of, as they book themselves.

    References
    ----------
    https://www.postgresql.org/docs/current/sql-prepare.html, generic plans. That of PostgreSQL 16 and later,
    EXPLAIN (GENERIC_PLAN), does the same where nothing has to be prepared.
    """

    def __init__(self, ledger: Ledger, mix: Mix) -> None:
        self._ledger = ledger
        kinds = [OperationKind(name) for name, share in zip(mix.names, mix.shares, strict=True) if share > 0]
        self._statements = sorted({name for kind in kinds for name in statement_names(kind, is_booked=True)})

    def look(self) -> Mapping[str, QueryPlan]:
        """Return the plan of each statement by its name; waits for no lock.

        Raises
        ------
        ServerUnreachable, TargetError
        """

        def planned(connection: Connection[TupleRow]) -> dict[str, QueryPlan]:
            # what a look that failed has left: a rollback takes back everything but that
            if connection.execute(query("accounting/parameters")).fetchone():
                connection.execute("DEALLOCATE genesis_plan")
            with connection.transaction():
                connection.execute(query("accounting/generic_plans"))
                return {name.rpartition("/")[2]: _plan(connection, name) for name in self._statements}

        try:
            plans: dict[str, QueryPlan] = self._ledger.run(planned, "look at the plans of the load")
        except psycopg.Error as error:
            raise TargetError(
                f"The plans of the load's statements cannot be seen: {error.diag.message_primary or error}.",
                "They are looked at again in a minute.",
            ) from error
        return plans


def _plan(connection: Connection[TupleRow], name: str) -> QueryPlan:
    connection.execute(sql.SQL("PREPARE genesis_plan AS {}").format(sql.SQL(query(name))))
    row = connection.execute(query("accounting/parameters")).fetchone()
    nothing = sql.SQL(", ").join([sql.NULL] * (row[0] if row else 0))
    told = connection.execute(sql.SQL("EXPLAIN (COSTS OFF) EXECUTE genesis_plan ({})").format(nothing)).fetchall()
    connection.execute("DEALLOCATE genesis_plan")
    return QueryPlan(tuple(str(line) for (line,) in told))
