"""Load of our own on the session's server: tables, capacity, offered rate."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.target.postgres.capabilities import require_writable_primary
from ml_postgres_optimization.workload import (
    LEVELS,
    LOAD_TABLES,
    LoadGenerator,
    LoadPlan,
    OperationMix,
    TableSet,
    create_tables,
    measure_capacity,
    tables_scale,
)
from ml_postgres_optimization.workload.accounting import Ledger
from ml_postgres_optimization.workload.generator.admission import free_connections

CAPACITY_SECONDS = 5.0
# Sessions of ours that observe and change settings, and one for the user, stay free beside the load.
CONNECTIONS_KEPT_FREE = 8


@dataclass(frozen=True, slots=True)
class Offer:
    """What load a server gets, and what it could bear.

    Parameters
    ----------
    plan : LoadPlan
        Open loop, with the connections of a plain pool: as many as the server has for us.
    capacity_per_second : float
        What it did in a closed loop with them; not a number where nobody measured it.
    name : str
        Of the level or workload.
    """

    plan: LoadPlan
    capacity_per_second: float
    name: str


def require_permission(session: Session) -> None:
    """Refuse to load a server of the user's unasked.

    Raises
    ------
    UsageError
    """
    if not session.may_load:
        raise UsageError(
            f"This needs load of our own, and {session.connection.display} is a server of yours.",
            "Allow it with --simulate; it makes schema genesis_load there, and uses the server's capacity.",
        )


def ensure_tables(session: Session) -> None:
    """Make our own tables at the chosen scale, where they are not there yet; raises what `tables_for` does."""
    tables_for(session, LOAD_TABLES, session.settings.table_scale)


def tables_for(session: Session, table_set: TableSet, scale: float) -> None:
    """Make tables of ours at a scale, where they are not there yet.

    Raises
    ------
    ReadOnlyServer
        If the server is a standby, or read-only.
    """
    require_writable_primary(session.target.capabilities)
    dsn = session.connection.dsn_for_driver()
    if tables_scale(dsn, table_set) != scale:
        megabytes = table_set.bytes_at_scale_1 * scale / 1e6
        session.reporter.say(f"Making tables in schema {table_set.schema}, about {megabytes:,.0f} MB …")
        create_tables(dsn, scale, table_set)


def offered(
    session: Session,
    mix: OperationMix,
    *,
    capacity_ratio: float | None = None,
    clients: int | None = None,
    rate_per_second: float | None = None,
    ledger: tuple[str, int] | None = None,
) -> Offer:
    """Measure what the server can do with a plain pool, and offer the level's share of it.

    Parameters
    ----------
    mix : OperationMix
    capacity_ratio : float, optional
        Instead of the level's.
    clients : int, optional
        Likewise.
    rate_per_second : float, optional
        Offer this instead, and measure nothing.
    ledger : tuple of str and int, optional
        What is measured books itself in it (`LoadPlan.ledger`), where what is offered will: that takes up to a fifth
        of what a server can do. The plan returned has none.
    """
    level = LEVELS[session.settings.level]
    users = clients or level.clients
    dsn = session.connection.dsn_for_driver()
    connections = max(1, min(users, free_connections(dsn) - CONNECTIONS_KEPT_FREE))
    plan = LoadPlan(mix, connections=connections, clients=users, seed=session.settings.seed)
    if rate_per_second is not None:
        session.reporter.say(f"Offering {rate_per_second:,.0f} operations/s over {connections} connections.")
        return Offer(replace(plan, rate_per_second=rate_per_second), math.nan, level.name)
    capacity = measure_capacity(dsn, replace(plan, ledger=ledger), CAPACITY_SECONDS)
    rate = max(1.0, capacity * (capacity_ratio or level.capacity_ratio))
    session.reporter.say(
        f"A plain pool of {connections} connections does {capacity:,.0f} operations/s; "
        f"level {level.name} offers {rate:,.0f}/s."
    )
    session.log.info("load", connections=connections, capacity_per_second=capacity, rate_per_second=rate)
    return Offer(replace(plan, rate_per_second=rate), capacity, level.name)


def offered_with_ledger(session: Session, mix: OperationMix, *, rate_per_second: float | None = None) -> Offer:
    """Offer what a test gets, whose operations book themselves: what is measured for it does too, and is forgotten.

    Raises
    ------
    ServerUnreachable, TargetError
        If the ledger cannot be taken or forgotten.
    """
    if rate_per_second is not None:
        return offered(session, mix, rate_per_second=rate_per_second)
    run = f"{session.run} capacity"
    with Ledger(session.connection.dsn_for_driver(), run) as ledger:
        try:
            return offered(session, mix, ledger=(run, ledger.take(0, is_new=True)))
        finally:
            ledger.forget()


@contextmanager
def running(session: Session, plan: LoadPlan) -> Iterator[LoadGenerator]:
    """Run the load as long as the context lasts."""
    with LoadGenerator(session.connection.dsn_for_driver(), plan) as generator:
        yield generator
