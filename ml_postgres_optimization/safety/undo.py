"""Put settings back by compare-and-set: only what is still ours, so that somebody else's change survives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from ml_postgres_optimization.errors import ChangeRefused, PrivilegeMissing, TargetError
from ml_postgres_optimization.knobs.configuration import described, is_of_role
from ml_postgres_optimization.knobs.knob import Setting
from ml_postgres_optimization.knobs.rendering import parse, same_value, written_text
from ml_postgres_optimization.safety.deferral import deferred_signals
from ml_postgres_optimization.safety.journal import Journal, JournalledTrial, KnobChange, RecordKind
from ml_postgres_optimization.safety.permission import visibility_grants
from ml_postgres_optimization.target.capabilities import Capabilities
from ml_postgres_optimization.target.protocols import Actuator

NOTHING = "nothing"
"""What ``postgresql.auto.conf`` says of a parameter that has no entry there; of a role's, ``pg_db_role_setting``."""

Restart = Callable[[Mapping[str, str | None]], None]


@dataclass(frozen=True, slots=True)
class PutBack:
    """What came of putting knobs back.

    Parameters
    ----------
    restored : mapping of str to str
        Knob → what ``postgresql.auto.conf`` says of it now; ``nothing`` where it has no entry.
    foreign : mapping of str to str
        Knob that somebody else has changed meanwhile, and that was left alone → what it says now.
    pending : tuple of str
        Knobs of which the server still has what was on trial, until its next start.
    """

    restored: Mapping[str, str] = field(default_factory=dict)
    foreign: Mapping[str, str] = field(default_factory=dict)
    pending: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Undone:
    """A trial that was not finished, and is undone now.

    Parameters
    ----------
    trial_id : str
    begun_at : str
        Wall time, ISO 8601 in UTC.
    restored, foreign, pending
        As in `PutBack`.
    awaiting : tuple of str
        Settings of roles, which only a server that runs can put back; the trial is unfinished until then.
    """

    trial_id: str
    begun_at: str
    restored: Mapping[str, str]
    foreign: Mapping[str, str]
    pending: tuple[str, ...] = ()
    awaiting: tuple[str, ...] = ()

    def __str__(self) -> str:
        done = listed(self.restored) or "nothing was left to do"
        left = f"; left as somebody else set it: {listed(self.foreign)}" if self.foreign else ""
        waits = f"; in force only when the server is restarted: {', '.join(self.pending)}" if self.pending else ""
        later = (
            f"; put back when the server runs: {', '.join(map(described, self.awaiting))}" if self.awaiting else ""
        )
        return f"Undid trial {self.trial_id} of {self.begun_at}: {done}{left}{waits}{later}."


def listed(knobs: Mapping[str, str]) -> str:
    """Write for people what is said of settings now."""
    told = {described(name): text for name, text in knobs.items()}
    return ", ".join(f"{name} reset" if text == NOTHING else f"{name} = {text}" for name, text in told.items())


def needs_restart(setting: Setting) -> bool:
    """Tell whether only a start of the server brings a change of this setting into force."""
    return setting.context == "postmaster"


def is_ours(knob: KnobChange, setting: Setting | None) -> bool:
    """Tell whether ``postgresql.auto.conf`` says of the knob what the trial wrote."""
    if setting is None or setting.written_value is None:
        return False
    if is_of_role(knob.name):  # the catalogue keeps what was typed: another spelling is another's
        return setting.written_value == written_text(knob.new_value)
    try:
        written = parse(setting.written_value, setting.kind, setting.unit)
    except ValueError:
        return False
    return same_value(written, knob.new_value, setting.kind)


def is_as_before(knob: KnobChange, setting: Setting | None) -> bool:
    """Tell whether ``postgresql.auto.conf`` says of the knob what it said before the trial."""
    return setting is not None and setting.written_value == knob.old_written


def says(setting: Setting | None) -> str:
    """Describe what ``postgresql.auto.conf`` says of a setting."""
    if setting is None:
        return "gone from this server"
    return _text(setting.written_value)


def _text(written: str | None) -> str:
    return NOTHING if written is None else written


def put_back(actuator: Actuator, knobs: Iterable[KnobChange], *, restart: Restart | None = None) -> PutBack:
    """Put back what is still ours, and make it take effect by one reload or restart; a second call changes nothing.

    Parameters
    ----------
    actuator : Actuator
    knobs : iterable of KnobChange
    restart : callable, optional
        Restarts the server; the actuator's own by default, where it has one. Without any, what needs a restart is put
        back in the file, and comes into force with the server's next start.

    Raises
    ------
    TargetError
        If the server is away or refuses; what was put back until then stays, and a later call does the rest.
    """
    try:
        return _put_back(actuator, tuple(knobs), restart or (actuator.restart if actuator.can_restart else None))
    except ChangeRefused as refusal:
        # a refused proposal leaves the server as it was; this leaves on trial what was, which nobody may pass over
        raise TargetError(
            f"What was on trial could not be put back yet: {refusal.what}",
            f"{refusal.next_step} Then start again: every start of ours puts it back first.",
        ) from refusal


def _put_back(actuator: Actuator, wanted: tuple[KnobChange, ...], restart: Restart | None) -> PutBack:
    live = actuator.settings([knob.name for knob in wanted]) if wanted else {}
    restored, foreign = {}, {}
    in_force = {knob.name for knob in wanted if _is_still_in_force(knob, live.get(knob.name))}
    for knob in wanted:
        setting = live.get(knob.name)
        if is_as_before(knob, setting):
            continue
        if not is_ours(knob, setting):
            foreign[knob.name] = says(setting)
        elif actuator.restore(knob.name, knob.old_written, only_if=partial(is_ours, knob)):
            restored[knob.name] = _text(knob.old_written)
        # somebody else's since that look, or put back by somebody else
        elif not is_as_before(knob, now := actuator.settings([knob.name]).get(knob.name)):
            foreign[knob.name] = says(now)
    stale = in_force - foreign.keys()
    pending = tuple(sorted(name for name in stale if needs_restart(live[name])))
    if restart is not None and pending:
        restart({})
        return PutBack(restored, foreign)
    if not all(is_of_role(name) for name in {*restored, *stale}):
        actuator.reload()
    return PutBack(restored, foreign, pending)


def _is_still_in_force(knob: KnobChange, setting: Setting | None) -> bool:
    """Tell whether the server has what was on trial, perhaps since a run of ours ended before the reload."""
    return setting is not None and same_value(setting.value, knob.new_value, setting.kind)


def undo_unfinished(
    actuator: Actuator,
    journal: Journal,
    *,
    capabilities: Capabilities | None = None,
    restart: Restart | None = None,
) -> tuple[Undone, ...]:
    """Undo every trial that the journal knows as unfinished, the newest first: the first thing that any start does.

    Parameters
    ----------
    actuator : Actuator
    journal : Journal
    capabilities : Capabilities, optional
        With them, a role that cannot see what was written is refused, rather than left to take it for nothing.
    restart : callable, optional
        As in `put_back`.

    Raises
    ------
    PrivilegeMissing
        If something is unfinished and our role cannot see it.
    TargetError
        If the server is away or refuses; the trials stay unfinished, and the next start tries again.
    JournalError
        If the journal cannot be written; the server is as it should be then.
    """
    unfinished = journal.state.unfinished
    in_files = [trial for trial in unfinished if not is_of_roles_only(trial)]
    if in_files and capabilities and not capabilities.settings_visible:
        raise PrivilegeMissing(
            f"Trial {in_files[-1].intent.trial_id} is unfinished, and role {capabilities.role} cannot see what it "
            "left in postgresql.auto.conf.",
            f"Start as the role of that run, or: {visibility_grants(capabilities)}",
        )
    return tuple(_undone(actuator, journal, trial, restart) for trial in reversed(unfinished))


def is_of_roles_only(trial: JournalledTrial) -> bool:
    """Tell whether a trial is of settings of roles alone, of which no file says anything."""
    knobs = trial.intent.knobs
    return bool(knobs) and all(is_of_role(knob.name) for knob in knobs)


def _undone(actuator: Actuator, journal: Journal, trial: JournalledTrial, restart: Restart | None) -> Undone:
    intent = trial.intent
    with deferred_signals():
        result = put_back(actuator, intent.knobs, restart=restart)
        journal.append(RecordKind.REVERTED, intent.trial_id, foreign=result.foreign)
    return Undone(intent.trial_id, intent.at, result.restored, result.foreign, result.pending)
