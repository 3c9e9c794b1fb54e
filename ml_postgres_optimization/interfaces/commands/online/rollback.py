"""``rollback``: put back an earlier configuration."""

from __future__ import annotations

from ml_postgres_optimization.interfaces.reporter import Result
from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.interfaces.trial_view import shown
from ml_postgres_optimization.interfaces.workbench.ground import survey
from ml_postgres_optimization.knobs.catalogue import load_catalogue
from ml_postgres_optimization.safety.journal import read_journal
from ml_postgres_optimization.safety.rollback import rollback, trials_back_to


def roll_back(session: Session, *, to: str = "baseline", dry_run: bool = False) -> Result:
    """Put back what stood before a confirmed trial, or before all of them.

    Raises
    ------
    UsageError
        If no such trial is in force.
    """
    if dry_run:
        return _rollback_preview(session, to)
    with session.sole_optimizer() as journal:
        undone = rollback(survey(session).guard(journal), to=to)
    document = {"undone": [{"trial": one.trial_id, "restored": dict(one.restored)} for one in undone]}
    return Result(
        document, (), [str(one) for one in undone] or ["No promoted trial is in force: nothing to put back."]
    )


def _rollback_preview(session: Session, to: str) -> Result:
    journal = read_journal(session.home.of_server(session.server))
    catalogue = load_catalogue()
    lines = [
        f"Would undo trial {trial.intent.trial_id}: {knob.name} back to {shown(knob.name, knob.old_value, catalogue)}"
        for trial in (*reversed(journal.unfinished), *reversed(trials_back_to(to, journal)))
        for knob in trial.intent.knobs
    ]
    return Result({"would": lines}, (), lines or ["No promoted trial is in force: nothing to put back."])
