"""What a run offers, as its journal keeps it, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from ml_postgres_optimization import __version__
from ml_postgres_optimization.errors import JournalError
from ml_postgres_optimization.interfaces.commands.soaking.disturbing import kept_faults
from ml_postgres_optimization.interfaces.commands.soaking.reports import CRITERIA, OPTIMIZES, limits_of
from ml_postgres_optimization.interfaces.commands.soaking.wishes import NOTHING_SAID, Wish
from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.soak.journal import RunDescription
from ml_postgres_optimization.workload import LoadPlan, OperationKind, OperationMix, RateShape, usable_cores
from ml_postgres_optimization.workload.shapes import Replay, Stages, shape_named

# Whoever hears the load may do so less often than one that shows it second by second.
_REPORT_SECONDS, _REPORTS_PER_INTERVAL = 0.5, 20


def described(
    session: Session, plan: LoadPlan, seconds: float, at: datetime, *, by: str, wish: Wish = NOTHING_SAID
) -> RunDescription:
    """Return the description of a run that offers `plan`.

    Parameters
    ----------
    by : str
        The command that began it: ``all`` takes up its own runs only.
    wish : Wish
        Its shape is kept by its name, or by its points where it is a file's or of levels; its faults as they are.
    """
    settings, capabilities = session.settings, session.target.capabilities
    return RunDescription(
        run=session.run,
        server=session.server,
        database=capabilities.database,
        display=session.connection.display,
        version=capabilities.version,
        started_at=at,
        duration_seconds=seconds,
        interval_seconds=min(settings.window_seconds, seconds),
        seed=settings.seed,
        load=load_json(plan)
        | {CRITERIA: asdict(limits_of(settings))}
        | {"shape": kept_shape(plan, wish.shape), "by": by, "level": settings.level, "scale": settings.table_scale}
        | ({OPTIMIZES: True} if wish.optimizes else {})
        | kept_faults(wish.faults),
        labels={"run": session.run, "level": settings.level, "phase": "test"},
        program=__version__,
    )


def kept_shape(plan: LoadPlan, shape: str) -> object:
    """Return what a run's description keeps of its shape: its name, or what a name does not say."""
    if isinstance(plan.rate_shape, Stages):
        return {"stages": plan.rate_shape.stages}
    return plan.rate_shape.points if isinstance(plan.rate_shape, Replay) else shape


def _shape(kept: Any, seed: int, duration_seconds: float) -> RateShape:
    if isinstance(kept, str):
        return shape_named(kept, duration_seconds=duration_seconds, seed=seed)
    if isinstance(kept, Mapping):
        return Stages(tuple((float(length), float(factor)) for length, factor in kept["stages"]))
    return Replay(tuple((float(at), float(factor)) for at, factor in kept))


def load_json(plan: LoadPlan) -> dict[str, Any]:
    """Return what is to be offered again when a run is taken up, JSON-ready."""
    weights = plan.mix.weights if isinstance(plan.mix, OperationMix) else {}
    return {
        "rate_per_second": plan.rate_per_second,
        "connections": plan.connections,
        "clients": plan.clients,
        # each process draws operations of its own: another number of them would be another schedule
        "processes": plan.active_count(plan.process_count(usable_cores())),
        "mix": {kind.value: weight for kind, weight in weights.items()},
    }


def planned(load: Mapping[str, Any], seed: int, duration_seconds: float) -> LoadPlan:
    """Return the plan that `load_json` was made from.

    Raises
    ------
    JournalError
        If it is none.
    """
    try:
        return LoadPlan(
            OperationMix({OperationKind(kind): weight for kind, weight in load["mix"].items()}),
            rate_per_second=load["rate_per_second"],
            connections=load["connections"],
            clients=load["clients"],
            processes=load.get("processes"),
            seed=seed,
            rate_shape=_shape(load["shape"], seed, duration_seconds),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise JournalError(
            f"What the run offers cannot be read from its journal: {error}.", "Abandon it, and start another."
        ) from error


def heard(plan: LoadPlan, ledger: tuple[str, int], interval_seconds: float) -> LoadPlan:
    """Return the plan with its ledger, whose clients report less often where intervals are long."""
    seconds = max(plan.report_seconds, min(_REPORT_SECONDS, interval_seconds / _REPORTS_PER_INTERVAL))
    return replace(plan, ledger=ledger, report_seconds=seconds)
