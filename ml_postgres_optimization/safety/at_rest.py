"""Put back what is on trial on a server that is down: in its file, which nobody else writes then."""

from __future__ import annotations

from pathlib import Path

from ml_postgres_optimization.knobs.configuration import is_of_role
from ml_postgres_optimization.knobs.rendering import written_text
from ml_postgres_optimization.safety.journal import Journal, JournalledTrial, RecordKind
from ml_postgres_optimization.safety.undo import NOTHING, Undone, is_of_roles_only
from ml_postgres_optimization.target.restart.auto_conf import FILE_NAME, put_back, written


def undo_at_rest(data_directory: Path, journal: Journal) -> tuple[Undone, ...]:
    """Undo every trial that the journal knows as unfinished, the newest first: only what is still as it wrote it.

    A server that died under a candidate need not start with it. Nothing is in force on one that is down, so that
    what is put back in its file is undone. What roles were given is out of reach then: a trial that gave any stays
    unfinished, and the first start of ours on the running server does the rest.

    Parameters
    ----------
    data_directory : Path
        Of a server that does not run, nor is started before this returns (`EmbeddedServer.at_rest`).
    journal : Journal
        Of the same server.

    Raises
    ------
    TargetError
        If the file cannot be read or written.
    JournalError
        If the journal cannot be written; the file is as it should be then.
    """
    # settings of roles wait for the server
    unfinished = [trial for trial in journal.state.unfinished if not is_of_roles_only(trial)]
    return tuple(_undone(data_directory / FILE_NAME, journal, trial) for trial in reversed(unfinished))


def _undone(file: Path, journal: Journal, trial: JournalledTrial) -> Undone:
    says, intent = written(file), trial.intent
    knobs = [knob for knob in intent.knobs if not is_of_role(knob.name)]
    old = {knob.name: knob.old_written for knob in knobs}
    ours = {knob.name for knob in knobs if says.get(knob.name) == written_text(knob.new_value)}
    changed = {name: text for name, text in old.items() if says.get(name) != text}
    if restored := {name: text for name, text in changed.items() if name in ours}:
        put_back(file, restored)
    foreign = {name: says.get(name) or NOTHING for name in changed if name not in ours}
    if len(knobs) == len(intent.knobs):
        journal.append(RecordKind.REVERTED, intent.trial_id, foreign=foreign)
    told = {name: NOTHING if text is None else text for name, text in restored.items()}
    awaiting = tuple(knob.name for knob in intent.knobs if is_of_role(knob.name))
    return Undone(intent.trial_id, intent.at, told, foreign, awaiting=awaiting)
