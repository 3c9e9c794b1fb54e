"""Prevention on the session's server: its levers, what it sees, and who hears of it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial

from ml_postgres_optimization.errors import PrivilegeMissing, ServerUnreachable, TargetError, UsageError
from ml_postgres_optimization.interfaces.logs import Log
from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.interfaces.workbench.bench import Workbench
from ml_postgres_optimization.interfaces.workbench.observing import Observer
from ml_postgres_optimization.models.observation import Prediction
from ml_postgres_optimization.retry.classification import ErrorClass
from ml_postgres_optimization.target.postgres.repository import PreventionRecord, Repository
from ml_postgres_optimization.target.postgres.roles import grants
from ml_postgres_optimization.target.postgres.server import PostgresTarget
from ml_postgres_optimization.target.seen import RoleSeen
from ml_postgres_optimization.telemetry import Window
from ml_postgres_optimization.tuning.preventing import HARMED, SYMPTOM, Danger, Means, Occasion, Preventer, savings
from ml_postgres_optimization.tuning.preventing.levers import (
    EndBlocker,
    FewerAtOnce,
    LargerWal,
    LessMemory,
    Lever,
    RoleTimeouts,
    VacuumTable,
)

_CERTAIN = Prediction(1.0, 1.0, 1.0)


def preventer_of(session: Session, workbench: Workbench) -> Preventer:
    """Return who meets dangers in a continuous run, as far as the owner lets it."""
    settings = session.settings
    means = Means()
    if settings.prevent != "off":
        means = Means(
            _levers(session, is_ours=workbench.laboratory.load is not None),
            workbench.observer.foresight,
            partial(symptoms_on, session.target, log=session.log),
            session.target,
            only_advises=settings.prevent == "advise",
            harmed=Harmed(session),
        )
    return Preventer(
        workbench.laboratory,
        means,
        # of each run its own, so that not every run begins with the same lot
        rng=random.Random(f"{settings.seed} {session.run}"),
        subscribers=[PreventionListener(session, workbench.observer)],
    )


def require_roles(session: Session) -> None:
    """See that the roles that were named may be given settings.

    Raises
    ------
    UsageError
        If there is none of that name, or it is a superuser, the role that we work as, or one that may not log in.
    PrivilegeMissing
        If our role may not.
    """
    for name in session.settings.prevent_role:
        seen = session.target.role(name)
        if hindrance := _hindrance(seen):
            raise UsageError(f"--prevent-role is {name!r}: {hindrance}.", "Name the role of an application.")
        if seen and not seen.may_be_set:
            raise PrivilegeMissing(
                f"Role {session.target.capabilities.role} may not give settings to role {name}.",
                f"It takes {grants(name)}.",
            )


def _hindrance(seen: RoleSeen | None) -> str | None:
    if seen is None:
        return "there is no such role"
    if seen.is_superuser:
        return "it is a superuser"
    if seen.is_ours:
        return "it is the role that we work as"
    return None if seen.may_log_in else "it may not log in, and its members have nothing of its settings"


def _levers(session: Session, *, is_ours: bool) -> Sequence[Lever]:
    """Return every lever, what is the most narrow first; where the load is ours, that is what it does at once."""
    settings, target = session.settings, session.target
    limits = RoleTimeouts(settings.prevent_role, target.capabilities.database, target.settings)
    return (
        EndBlocker(is_permitted=settings.prevent_terminate),
        LessMemory(),
        LargerWal(),
        *((FewerAtOnce(), limits) if is_ours else (limits, FewerAtOnce())),
        VacuumTable(is_permitted=settings.prevent_vacuum, find=target.bloated_table),
    )


class Harmed:
    """The classes of which acting has brought more errors, by the repository; where it is away, as it last was."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._known: frozenset[ErrorClass] = frozenset()

    def __call__(self) -> frozenset[ErrorClass]:
        """Return them."""
        try:
            shown = savings(self._session.repository().preventions())
        except TargetError as error:
            self._session.log.warning("prevention", what=error.what, step="read what prevention saved")
            return self._known
        self._known = frozenset(ErrorClass(one.error_class) for one in shown if one.verdict == HARMED)
        return self._known


def symptoms_on(target: PostgresTarget, window: Window, *, log: Log) -> Sequence[Danger]:
    """Look for who keeps others waiting, where the window shows that somebody may.

    Raises
    ------
    ServerUnreachable
        If the server is gone; whatever else goes wrong stands in the log, and nobody was seen.
    """
    waits = window.gauges.get("activity.blocked_sessions", 0.0)
    idle = window.gauges.get("activity.idle_in_transaction_sessions", 0.0)
    if not (waits > 0 and idle > 0):
        return ()
    try:
        blocker = target.blocker()
    except ServerUnreachable:
        raise
    except TargetError as error:
        log.warning("prevention", what=error.what, step="look for who keeps others waiting")
        return ()
    return () if blocker is None else (Danger(ErrorClass.TIMEOUT, _CERTAIN, SYMPTOM, blocker),)


class PreventionListener:
    """Tell the user and the log what is done about dangers, and have the repository keep it."""

    def __init__(self, session: Session, observer: Observer) -> None:
        self._session = session
        self._observer = observer

    def __call__(self, occasion: Occasion, message: str) -> None:
        """Take an occasion when it begins, before anything is done, and when it ends."""
        self._session.log.info("prevention", occasion=occasion.id, choice=str(occasion.choice), message=message)
        self._session.reporter.say(f"prevention: {message}")
        if occasion.after is not None:
            self._observer.know(occasion.after, "prevention")
        record = record_of(occasion, self._session.run)
        self._observer.keep(lambda repository: Repository.add_prevention(repository, record))
        # what was put in force and back is no change by somebody else
        self._observer.look()


def record_of(occasion: Occasion, run: str) -> PreventionRecord:
    """Return an occasion as the repository keeps it."""
    predicted = occasion.danger.probability
    return PreventionRecord(
        id=occasion.id,
        run=run,
        began_at=occasion.began_at,
        ended_at=occasion.ended_at,
        error_class=str(occasion.danger.error_class),
        probability=predicted.value,
        low=predicted.low,
        high=predicted.high,
        level=predicted.level,
        threshold=occasion.threshold,
        source=occasion.danger.source,
        choice=str(occasion.choice),
        lever=occasion.lever,
        deed=occasion.deed,
        ending=occasion.ending,
        before=occasion.before,
        after=occasion.after,
        windows=occasion.windows,
        operations=occasion.operations,
        errors=occasion.errors,
        response_seconds=occasion.response_seconds,
        is_whole=occasion.is_whole,
        due=round(occasion.due),
        undone=round(occasion.undone),
    )
