"""Put back what stood before a trial that had been confirmed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.knobs.configuration import Change
from ml_postgres_optimization.knobs.knob import Setting
from ml_postgres_optimization.safety.deferral import deferred_signals
from ml_postgres_optimization.safety.guard import Guard
from ml_postgres_optimization.safety.journal import JournalledTrial, JournalState, RecordKind
from ml_postgres_optimization.safety.undo import Undone, is_as_before, is_ours, undo_unfinished

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
        # the guard's, which keeps the lock of the one optimiser over it
        restart = guard.restart if guard.actuator.can_restart else None
        return undo_unfinished(guard.actuator, guard.journal, capabilities=guard.capabilities, restart=restart)


def put_in_force(guard: Guard, change: Change, change_id: str) -> Mapping[str, str]:
    """Put a configuration in force for good that was in force before: journalled and verified as any trial is.

    Parameters
    ----------
    guard : Guard
    change : Change
        `before` is what is in force.
    change_id : str
        Under which a later rollback undoes it.

    Returns
    -------
    mapping of str to str
        Settings that somebody else changed at that very moment, and that were left → what the file says of them.

    Raises
    ------
    ChangeRefused
        If the guard refuses it, by now or still.
    TargetError
        If the server is away or refuses; what was written is put back, at the next start at the latest.
    JournalError
        If the journal cannot be written.
    """
    with guard.trial(change, change_id) as guarded:
        guarded.confirm()
    return guarded.foreign_changes


def statements_back(
    trials: Iterable[JournalledTrial], settings: Mapping[str, Setting]
) -> Iterator[tuple[JournalledTrial, str, str | None]]:
    """Say what `rollback` would write, without writing it.

    Parameters
    ----------
    trials : iterable of JournalledTrial
        In the order in which they are undone.
    settings : mapping of str to Setting
        Live.

    Yields
    ------
    trial, name, written : JournalledTrial, str, str or None
        What ``postgresql.auto.conf`` would say of the setting, or the catalogue of a role's; None where it would be
        reset. A setting that is
        somebody else's, or as it was, is passed over.
    """
    now = dict(settings)
    for trial in trials:
        for knob in trial.intent.knobs:
            setting = now.get(knob.name)
            if setting is not None and is_ours(knob, setting) and not is_as_before(knob, setting):
                now[knob.name] = replace(setting, written_value=knob.old_written)
                yield trial, knob.name, knob.old_written


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
            f"Name one of them, {BASELINE} for what stood before all of them, or a moment: 2026-11-30 14:00.",
        )
    return confirmed[ids.index(to) :]
