"""Bring the workload that a server is tuned for: its tables, its scripts, its users."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.interfaces.workbench.load import (
    CONNECTIONS_KEPT_FREE,
    Offer,
    offered,
    require_permission,
    tables_for,
)
from ml_postgres_optimization.workload import (
    LoadPlan,
    OperationMix,
    ScriptMix,
    Workload,
    first_run,
    free_connections,
    run_setup,
    usable_cores,
    workload_named,
)


@dataclass(frozen=True, slots=True)
class Brought:
    """A workload that is ready to run.

    Parameters
    ----------
    workload : Workload
    offer : Offer
    round_seconds : float
        About how long all its scripts take together, each as often as its weight says; 0 for our own operations.
    """

    workload: Workload
    offer: Offer
    round_seconds: float = 0.0


def chosen_workload(session: Session) -> Workload:
    """Return the workload that the user chose.

    Raises
    ------
    UsageError
        If there is none of that name, or its scripts cannot be used.
    """
    settings = session.settings
    return workload_named(
        settings.workload,
        level=settings.level,
        scale=settings.scale,
        clients=settings.clients,
        query_timeout_seconds=settings.query_timeout_seconds,
    )


def bring(session: Session, workload: Workload) -> Brought:
    """Make the tables that are ours, play every script once, and say what will be offered.

    Raises
    ------
    UsageError
        If load of ours is not allowed on this server, it has too few connections, or a script does not work.
    TargetError
        If the server fails.
    """
    require_permission(session)
    if workload.table_set is not None:
        tables_for(session, workload.table_set, workload.scale)
    if isinstance(workload.mix, OperationMix):
        return Brought(workload, offered(session, workload.mix, clients=workload.clients))
    if not isinstance(workload.mix, ScriptMix):
        raise TypeError(f"a mix of a kind that is not known: {workload.mix!r}")
    _require_connections(session, workload)
    if workload.setup and session.embedded:
        session.reporter.say("Running the workload's setup.sql on the embedded server …")
        run_setup(session.connection.dsn_for_driver(), workload.setup)
    plan = LoadPlan(workload.mix, connections=workload.clients, clients=workload.clients, seed=session.settings.seed)
    return Brought(workload, Offer(plan, math.nan, workload.name), _round_seconds(session, workload, workload.mix))


def _require_connections(session: Session, workload: Workload) -> None:
    free = free_connections(session.connection.dsn_for_driver()) - CONNECTIONS_KEPT_FREE
    if workload.clients > free:
        raise UsageError(
            f"Workload {workload.name} has {workload.clients} clients, and the server has {max(0, free)} connections "
            f"for them, {CONNECTIONS_KEPT_FREE} kept free.",
            "Choose fewer --clients, or raise max_connections.",
        )


def _round_seconds(session: Session, workload: Workload, mix: ScriptMix) -> float:
    """Play every script once; what cannot work is known before anything is measured."""
    seconds = first_run(session.connection.dsn_for_driver(), mix, seed=session.settings.seed)
    deck = [seconds[mix.names[position]] for position in mix.deck]
    slowest = max(seconds, key=lambda name: seconds[name])
    session.reporter.say(
        f"Workload {workload.name}: {len(mix.scripts)} scripts, {workload.clients} clients; each was played once, "
        f"the slowest, {slowest}, in {seconds[slowest]:.2f} s."
    )
    return sum(deck) / min(workload.clients, usable_cores())
