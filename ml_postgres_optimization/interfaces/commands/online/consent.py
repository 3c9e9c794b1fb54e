"""``approve``, ``decline``, ``pause`` and ``resume``: the owner's word."""

from __future__ import annotations

import os
import pwd
from collections.abc import Sequence

from ml_postgres_optimization.interfaces.reporter import Result, Table
from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.interfaces.trial_view import changes_text
from ml_postgres_optimization.knobs.catalogue import load_catalogue
from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.safety.consent import Answer, Asking

_COLUMNS = ("configuration", "asked", "answer", "changes", "why")


def proposals_table(asked: Sequence[Asking]) -> Table:
    """Return a row for each proposal."""
    catalogue = load_catalogue()
    rows = [
        (
            one.id,
            one.at[:19].replace("T", " "),
            f"{one.answer}{f' by {one.answered_by}' if one.answered_by else ''}",
            changes_text(Configuration(one.before), one.configuration, catalogue),
            one.reason,
        )
        for one in asked
    ]
    return Table("Proposals (times in UTC)", _COLUMNS, rows, unbroken=1)


def proposal_json(asked: Asking) -> dict[str, object]:
    """Return a proposal for programs."""
    return {
        "id": asked.id,
        "asked_at": asked.at,
        "answer": str(asked.answer),
        "answered_at": asked.answered_at or None,
        "answered_by": asked.answered_by or None,
        "changes": {name: list(pair) for name, pair in asked.changes.items()},
        "reason": asked.reason,
    }


def show_proposals(session: Session) -> Result:
    """Return the proposals for the server that are neither tried nor forgotten."""
    asked = session.approvals.all()
    document = {"proposals": [proposal_json(one) for one in asked]}
    if not asked:
        return Result(document, (), ["No proposal waits. optimize --action approve makes some."])
    return Result(
        document, [proposals_table(asked)], ["genesis-pg approve ID lets one be tried, decline ID forbids it."]
    )


def answer(session: Session, name: str, word: Answer) -> Result:
    """Let a proposal be tried, or forbid it.

    Parameters
    ----------
    session : Session
    name : str
        Its id, or the beginning of it.
    word : Answer

    Raises
    ------
    UsageError
        If there is none of that name, or several.
    StateError
        If it cannot be written.
    """
    asked = session.approvals.answer(name, word, _account())
    session.log.info("answered", proposal=asked.id, answer=str(word), by=asked.answered_by)
    told = (
        "may be tried, and stays in force if it is proven better"
        if word is Answer.APPROVED
        else "is not tried; where it is on trial, it is put back"
    )
    return Result(
        {"proposal": proposal_json(asked)}, [proposals_table([asked])], [f"Configuration {asked.id} {told}."]
    )


def _account() -> str:
    """Return the account of the operating system that we run as; its number where it has no name, in a container."""
    number = os.geteuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"uid {number}"


def pause(session: Session, reason: str = "") -> Result:
    """Halt all changes of the server: what is on trial is put back within seconds, and nothing new is tried.

    Raises
    ------
    StateError
        If the pause file cannot be made.
    """
    file = session.pause_file
    is_new = file.pause(session.clock, reason)
    session.log.info("paused", is_new=is_new, reason=reason)
    told = "Paused" if is_new else f"It was paused already ({file.said()})"
    document = {"paused": True, "was_paused": not is_new, "path": str(file.path), "said": file.said()}
    lines = [
        f"{told}: nothing on {session.connection.display} is changed as long as {file.path} is there.",
        "A run that is at work puts back what is on trial, and waits. genesis-pg resume lets it go on.",
    ]
    if elsewhere := session.optimizer_elsewhere():
        lines.append(
            f"But {elsewhere} works with another state folder, and goes on: pause it as the account that runs it, "
            "with its GENESIS_HOME."
        )
    return Result(document | {"goes_on": str(elsewhere) if elsewhere else None}, (), lines)


def resume(session: Session) -> Result:
    """Let changes of the server go on.

    Raises
    ------
    StateError
        If the pause file cannot be taken away.
    """
    was_paused = session.pause_file.resume()
    session.log.info("resumed", was_paused=was_paused)
    told = "Changes may go on." if was_paused else "Nothing was paused."
    return Result({"paused": False, "was_paused": was_paused}, (), [told])
