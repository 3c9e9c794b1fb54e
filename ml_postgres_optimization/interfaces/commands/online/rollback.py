"""``rollback``: put back an earlier configuration."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime

from ml_postgres_optimization.errors import ChangeRefused, GenesisError
from ml_postgres_optimization.interfaces.commands.online.returning import (
    Setback,
    moment_of,
    moment_text,
    require_known,
    setbacks,
)
from ml_postgres_optimization.interfaces.reporter import Result
from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.interfaces.workbench.configuration_watch import record_configuration
from ml_postgres_optimization.interfaces.workbench.ground import Ground, survey
from ml_postgres_optimization.knobs.configuration import Change, Configuration, is_of_role
from ml_postgres_optimization.knobs.knob import KnobValue
from ml_postgres_optimization.knobs.rendering import parse, render
from ml_postgres_optimization.safety.constraints import CONSTRAINING_SETTINGS, Circumstances, review
from ml_postgres_optimization.safety.journal import JournalledTrial, JournalState, read_journal
from ml_postgres_optimization.safety.rollback import BASELINE, put_in_force, rollback, statements_back, trials_back_to
from ml_postgres_optimization.safety.undo import Undone, needs_restart
from ml_postgres_optimization.target.postgres.connection.settings import on_one_line
from ml_postgres_optimization.target.postgres.queries import alter_system_text
from ml_postgres_optimization.target.postgres.repository import Repository

_NOTHING = "No promoted trial is in force: nothing to put back."
_NOT_OURS = "not ours to put back here: it needs a restart that nobody has allowed, or our role may not set it"
_VERSION = "server_version"
_RELOAD = "SELECT pg_reload_conf();"


def roll_back(session: Session, *, to: str = BASELINE, dry_run: bool = False) -> Result:
    """Put back what stood before a confirmed trial, before all of them, or at a moment.

    Parameters
    ----------
    session : Session
    to : str
        ``baseline``, the id of a trial, or a moment as `moment_of` reads it.
    dry_run : bool

    Raises
    ------
    UsageError
        If no such trial is in force, or nothing is known of that moment.
    SchemaMissing
        If the repository, which is needed for a moment, lacks schema genesis.
    """
    journalled = read_journal(session.home.of_server(session.server)).trials
    moment = None if to == BASELINE or to in journalled else moment_of(to, session.clock.now())
    if moment is not None:
        session.reporter.say(f"Understood as {moment_text(moment)}.")
        return _preview_of_return(session, moment) if dry_run else _return_to(session, moment)
    if dry_run:
        return _preview(session, to)
    with session.sole_optimizer() as journal:
        undone = rollback(survey(session).guard(journal), to=to)
        record_configuration(session)
    return Result({"undone": _undone_json(undone)}, (), [str(one) for one in undone] or [_NOTHING])


def _undone_json(undone: Iterable[Undone]) -> list[dict[str, object]]:
    return [
        {"trial": one.trial_id, "restored": dict(one.restored), "pending_restart": list(one.pending)}
        for one in undone
    ]


def _preview(session: Session, to: str) -> Result:
    journal = read_journal(session.home.of_server(session.server))
    lines = list(_sql_back(session, (*reversed(journal.unfinished), *reversed(trials_back_to(to, journal)))))
    return Result({"would": lines}, (), [*lines, _RELOAD] if lines else [_NOTHING])


def _sql_back(session: Session, trials: Sequence[JournalledTrial]) -> Iterator[str]:
    """Yield the statements that undo these trials."""
    settings = session.target.settings({knob.name for trial in trials for knob in trial.intent.knobs})
    for trial, name, written in statements_back(trials, settings):
        restart = ", in force after a restart" if needs_restart(settings[name]) else ""
        yield f"{alter_system_text(name, written)} -- as before trial {trial.intent.trial_id}{restart}"


def _return_to(session: Session, moment: datetime) -> Result:
    """Take back what we did since, by the journal where a trial is undone, else by a change of its own."""
    with session.sole_optimizer() as journal:
        repository = session.repository()
        _require(session, repository, moment)
        record_configuration(session)
        undone: tuple[Undone, ...] = ()
        if first := _first_since(session, repository, journal.state, moment):
            undone = rollback(survey(session).guard(journal), to=first)
        with _noting(undone):
            if undone:
                record_configuration(session)
            ground = survey(session)
            found = _found(session, repository, moment)
            change, refused = _allowed(ground, _change(ground, found))
            foreign: Mapping[str, str] = {}
            if change.after:
                foreign = put_in_force(ground.guard(journal), change, f"rollback-{session.run}")
                record_configuration(session)
    return _returned(ground, undone, change, list(_left(found, change, refused)), foreign)


@contextmanager
def _noting(undone: Sequence[Undone]) -> Iterator[None]:
    """Note on an error what was put back before it, and stays so."""
    try:
        yield
    except GenesisError as error:
        for one in undone:
            error.add_note(f"Trial {one.trial_id} is undone, and the same command goes on from there: {one}")
        raise


def _require(session: Session, repository: Repository, moment: datetime) -> None:
    require_known(moment, session.clock.now().astimezone(moment.tzinfo), repository.known(session.server))


def _first_since(session: Session, repository: Repository, state: JournalState, moment: datetime) -> str | None:
    """Return the first trial that is in force and was not by then; None where there is none.

    One whose settings are as they were by then, all the same, is left; one that set our own side only is not.
    """
    ours = {each.name for each in _found(session, repository, moment) if each.target != each.now.value}
    confirmed_at = {
        str(entry.entry.get("trial")): entry.at
        for entry in sorted(repository.journal(session.server), key=lambda entry: entry.at)
        if entry.entry.get("kind") == "confirmed"
    }
    for trial in state.confirmed:
        intent = trial.intent
        # of roles nothing is recorded by which it could be told how they were
        if intent.knobs and all(knob.name not in ours and not is_of_role(knob.name) for knob in intent.knobs):
            continue
        if confirmed_at.get(intent.trial_id, datetime.fromisoformat(intent.at)) > moment:
            return intent.trial_id
    return None


def _found(session: Session, repository: Repository, moment: datetime) -> list[Setback]:
    live = {setting.name: setting.value for setting in session.target.configuration_seen().settings}
    return setbacks(repository.periods(session.server, moment), moment, live)


def _change(ground: Ground, found: Iterable[Setback]) -> Change:
    """Return what of it we may put in force by ourselves."""
    settings = ground.settings
    after = {
        each.name: parse(each.target, settings[each.name].kind, settings[each.name].unit)
        for each in found
        if each.target != each.now.value and each.name in ground.catalogue.tunable and each.name in settings
    }
    return Change(Configuration({name: settings[name].value for name in after}), Configuration(after))


def _allowed(ground: Ground, change: Change) -> tuple[Change, Mapping[str, str]]:
    """Return what of it the guard lets pass, and why it refuses the rest: one setting does not hold up the others."""
    target, after = ground.session.target, change.after
    settings = target.settings({*ground.catalogue.settings_needed, *CONSTRAINING_SETTINGS, *after})
    circumstances = Circumstances(ground.catalogue, settings, target.machine, target.capabilities, ground.connections)
    allowed: dict[str, KnobValue] = {}
    refused: dict[str, str] = {}
    # twice, since one may need another first: min_wal_size a larger max_wal_size
    for name in (*after, *after):
        try:
            review({**allowed, name: after[name]}, circumstances)
        except ChangeRefused as refusal:
            refused[name] = f"the guard refuses it: {refusal.what.rstrip('.')}"
        else:
            allowed[name] = after[name]
            refused.pop(name, None)
    before = Configuration({name: change.before[name] for name in allowed})
    return Change(before, Configuration(allowed)), refused


def _left(found: Iterable[Setback], change: Change, refused: Mapping[str, str]) -> Iterator[tuple[Setback, str]]:
    """Yield what is not as it was when `change` is in force, and why."""
    for each in found:
        if each.target != each.now.value and each.name not in change.after:
            yield each, refused.get(each.name, _NOT_OURS)
        elif each.foreign is not None:
            yield each, "somebody else has changed it since, so it is left"


def _left_lines(session: Session, left: Iterable[tuple[Setback, str]]) -> Iterator[str]:
    for each, why in left:
        yield f"-- {on_one_line(each.name)} is {each.now.value!r} now: {why}."
        if statement := _statement(session, each):
            yield statement


def _statement(session: Session, each: Setback) -> str | None:
    """Return what puts a setting back by hand; as a comment where it takes a restart, which has to be meant."""
    if each.name == _VERSION:
        return None
    statement = alter_system_text(each.name, each.then.value)
    setting = session.target.settings({each.name}).get(each.name)
    if setting is None or not needs_restart(setting):
        return statement
    already = ", and one is pending already" if setting.pending_restart else ""
    return on_one_line(f"-- it needs a restart{already}: {statement}")


def _left_json(session: Session, left: Iterable[tuple[Setback, str]]) -> list[dict[str, object]]:
    return [
        {
            "name": each.name,
            "then": each.then.value,
            "now": each.now.value,
            "unit": each.then.unit,
            "why": why,
            "sql": _statement(session, each),
        }
        for each, why in left
    ]


def _returned(
    ground: Ground,
    undone: Sequence[Undone],
    change: Change,
    left: Sequence[tuple[Setback, str]],
    foreign: Mapping[str, str],
) -> Result:
    lines = [str(one) for one in undone]
    lines += [
        f"Put back: {name} = {render(value, ground.settings[name].unit)}." for name, value in change.after.items()
    ]
    lines += [f"Left as somebody else set it meanwhile: {name} = {text}." for name, text in foreign.items()]
    lines = lines or ["Nothing of ours has changed since: nothing to put back."]
    if left:
        lines += ["Not as it was then; this would put it back:", *_left_lines(ground.session, left), _RELOAD]
    document = {
        "undone": _undone_json(undone),
        "put_back": dict(change.after),
        "left": _left_json(ground.session, left),
    }
    return Result(document, (), lines)


def _preview_of_return(session: Session, moment: datetime) -> Result:
    repository = session.repository()
    _require(session, repository, moment)
    state = read_journal(session.home.of_server(session.server))
    first = _first_since(session, repository, state, moment)
    trials = (*reversed(state.unfinished), *(reversed(trials_back_to(first, state)) if first else ()))
    by_journal = list(_sql_back(session, trials))
    undone = {knob.name for trial in trials for knob in trial.intent.knobs}
    found = _found(session, repository, moment)
    ground = survey(session)
    change, refused = _allowed(ground, _change(ground, [each for each in found if each.name not in undone]))
    lines = [*by_journal, *(alter_system_text(name, _text(found, name)) for name in change.after)]
    still_left = _left(found, change, refused)
    left = [(each, why) for each, why in still_left if each.foreign is not None or each.name not in undone]
    document = {"would": lines, "left": _left_json(session, left)}
    shown = [*lines, _RELOAD] if lines else ["Nothing of ours has changed since: nothing to put back."]
    if left:
        shown += ["-- Not as it was then; this would put it back too:", *_left_lines(session, left)]
    return Result(document, (), shown)


def _text(found: Iterable[Setback], name: str) -> str:
    return next(each.target for each in found if each.name == name)
