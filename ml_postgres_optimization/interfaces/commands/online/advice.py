"""What the rules would try first, and what is left to the owner: told, never done."""

from __future__ import annotations

from ml_postgres_optimization.interfaces.reporter import Result, Table
from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.interfaces.trial_view import shown
from ml_postgres_optimization.interfaces.workbench.ground import Ground, survey


def advise(session: Session) -> Result:
    """Say what the rules would try first, as SQL, and change nothing."""
    ground = survey(session)
    advice = ground.advice()
    changed = advice.configuration.difference(ground.initial)
    sql = [f"ALTER SYSTEM SET {name} = '{shown(name, new, ground.catalogue)}';" for name, (_, new) in changed.items()]
    lines = ["-- Tried first, together in one trial; nothing was changed:", *sql, "SELECT pg_reload_conf();"]
    left_out = [(name, reason) for name, reason in sorted(ground.catalogue.left_out.items())]
    document = {
        "sql": sql,
        "reasons": dict(advice.reasons),
        "restart_advice": dict(advice.restart_advice),
        "left_out": dict(left_out),
    }
    tables = [*restart_tables(ground), Table("Not tuned here", ("knob", "why"), left_out)]
    return Result(document, tables, lines)


def restart_tables(ground: Ground) -> list[Table]:
    """Return a table of what only a restart would bring; none where the rules have no such advice."""
    advice = ground.advice()
    rows = [
        (
            name,
            shown(name, ground.settings[name].value, ground.catalogue),
            shown(name, value, ground.catalogue),
            reason,
        )
        for name, value in advice.restart_advice.items()
        if (reason := advice.reasons.get(name, "")) is not None and name in ground.settings
    ]
    return (
        [Table("Advice: needs a restart, so it is yours to do", ("knob", "now", "advised", "why"), rows)]
        if rows
        else []
    )


def restart_advice_text(ground: Ground) -> str:
    """Say in a sentence what a restart, or somebody else, would bring beyond what we tune."""
    advice = ground.advice().restart_advice
    named = (f"{name} = {shown(name, value, ground.catalogue)}" for name, value in advice.items())
    text = ", ".join(named)
    return (
        f"What is left is yours: a restart ({text}), queries and indexes, or the machine."
        if text
        else ("What is left is yours: queries and indexes, or the machine.")
    )
