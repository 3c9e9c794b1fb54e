"""Put back what stood before a trial that had been confirmed."""

from __future__ import annotations

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.safety.deferral import deferred_signals
from ml_postgres_optimization.safety.guard import Guard
from ml_postgres_optimization.safety.journal import JournalledTrial, JournalState, RecordKind
from ml_postgres_optimization.safety.undo import Undone, undo_unfinished

BASELINE = "baseline"


def rollback(guard: Guard, *, to: str | None = None) -> tuple[Undone, ...]:
    """Put back the configuration from before a confirmed trial; the trials after it are undone too.

    Parameters
    ----------
    guard : Guard
    to : str, optional
        The trial's id; ``baseline`` for the first of all; the last one where it is not given.

    Returns
    -------
    tuple of Undone
        The trials that were undone, newest first; empty where none was confirmed.

    Raises
    ------
    UsageError
        If no trial of that name is confirmed.
    TargetError
        If the server is away or refuses; the next start goes on with it.
    JournalError
        If the journal cannot be written.

    Notes
    -----
    All of these trials are unfinished again in the journal before the first setting is put back. So a rollback that
    is cut short after that is completed at the next start, by the same compare-and-set as any other; one that is cut
    short before has undone the newest of them only, and may be repeated.
    """
    with deferred_signals():
        # the newest first: whatever cuts this short, what is reopened then is undone in the right order
        for trial in reversed(trials_back_to(to, guard.journal.state)):
            guard.journal.append(RecordKind.REOPENED, trial.intent.trial_id)
        return undo_unfinished(guard.actuator, guard.journal, capabilities=guard.capabilities)


def trials_back_to(to: str | None, state: JournalState) -> tuple[JournalledTrial, ...]:
    """Return the confirmed trials that `rollback` would undo, oldest first.

    Raises
    ------
    UsageError
        If no trial of that name is confirmed.
    """
    confirmed = state.confirmed
    if to is None:
        return confirmed[-1:]
    if to == BASELINE:
        return confirmed
    ids = [trial.intent.trial_id for trial in confirmed]
    if to not in ids:
        raise UsageError(
            f"No trial {to} is in force; those in force are: {', '.join(ids) or 'none'}.",
            f"Name one of them, or {BASELINE} for what stood before all of them.",
        )
    return confirmed[ids.index(to) :]
