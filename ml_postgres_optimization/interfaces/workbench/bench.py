"""An open optimisation: everything in place for trials on the session's server."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.interfaces.workbench.ground import Ground, survey
from ml_postgres_optimization.interfaces.workbench.load import Offer, ensure_tables, offered, running
from ml_postgres_optimization.interfaces.workbench.observing import Observer
from ml_postgres_optimization.safety.consent import Consent
from ml_postgres_optimization.safety.journal import Journal
from ml_postgres_optimization.telemetry import Recorder
from ml_postgres_optimization.tuning.laboratory import Laboratory
from ml_postgres_optimization.workload import LEVELS, LoadGenerator


@dataclass(frozen=True, slots=True)
class Workbench:
    """An open optimisation: the ground, the laboratory on it, and who keeps what happens.

    Parameters
    ----------
    ground : Ground
    laboratory : Laboratory
    observer : Observer
    offer : Offer or None
    load : LoadGenerator or None
        Both None where the sessions are not ours.
    """

    ground: Ground
    laboratory: Laboratory
    observer: Observer
    offer: Offer | None = None
    load: LoadGenerator | None = None


def own_load(session: Session) -> Offer:
    """Make our own tables, and measure what load the server can bear."""
    ensure_tables(session)
    return offered(session, LEVELS[session.settings.level].mix)


def require_consent(session: Session) -> Consent:
    """See that the owner lets the server be changed right now, before anything is loaded there.

    Raises
    ------
    NotNow
        If not.
    UsageError
        If a word is to be waited for, which only `optimize` can do.
    """
    if session.settings.action != "auto":
        raise UsageError(
            f"Action {session.settings.action} is for optimize: this changes settings without waiting for a word.",
            "Unset GENESIS_ACTION, or use: genesis-pg optimize",
        )
    consent = session.consent()
    consent.look()
    return consent


@contextmanager
def open_workbench(
    session: Session,
    journal: Journal,
    observer: Observer,
    offer: Offer | None,
    *,
    is_offline: bool = False,
    consent: Consent | None = None,
) -> Iterator[Workbench]:
    """Survey the ground and put the load on it, as long as the context lasts.

    Parameters
    ----------
    session : Session
    journal : Journal
    observer : Observer
    offer : Offer or None
        None where the sessions are not ours.
    is_offline : bool
        As in `survey`.
    consent : Consent, optional
        Given by who waits for it; others need it right now (`require_consent`).

    Raises
    ------
    NotNow
        If the owner does not.
    UsageError
        As `require_consent` does.
    """
    consent = consent or require_consent(session)
    ground = survey(session, connections=offer.plan.connections if offer else None, is_offline=is_offline)
    observer.know(ground.initial, "initial")
    labels = {"run": session.run, "level": offer.name if offer else "own"}
    rng = random.Random(session.settings.seed)
    if session.lease is not None:
        session.lease.prepare()  # says at once where nobody stands by inside of the server
    guard = ground.guard(journal, consent)
    if offer is None:
        recorder = Recorder(session.target, session.clock, subscribers=[observer])
        laboratory = Laboratory(guard, recorder, session.clock, rng, labels=labels, memory=session.target.memory)
        yield Workbench(ground, laboratory, observer)
        return
    plan = replace(offer.plan, connections=ground.concurrency or offer.plan.connections)
    with running(session, plan) as load:
        recorder = Recorder(session.target, session.clock, samples=load.samples, subscribers=[observer])
        laboratory = Laboratory(
            guard, recorder, session.clock, rng, load=load, labels=labels, memory=session.target.memory
        )
        yield Workbench(ground, laboratory, observer, offer, load)
