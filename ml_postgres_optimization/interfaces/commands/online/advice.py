"""What the rules would try first, and what is left to the owner: told, never done."""

from __future__ import annotations

from ml_postgres_optimization.interfaces.reporter import Result, Table
from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.interfaces.trial_view import shown
from ml_postgres_optimization.interfaces.workbench.ground import Ground, survey
from ml_postgres_optimization.knobs.configuration import Configuration


def advise(session: Session) -> Result:
    """Say what the rules would try first, as SQL, and change nothing."""
    ground = survey(session)
    advice = ground.advice()
    sql = sql_of(ground, advice.configuration)
    lines = ["-- Tried first, together in one trial; nothing was changed:", *sql, "SELECT pg_reload_conf();"]
    document = {
        "sql": sql,
        "reasons": dict(advice.reasons),
        "restart_advice": dict(advice.restart_advice),
        "left_out": dict(ground.catalogue.left_out),
    }
    return Result(document, [*restart_tables(ground), left_out_table(ground)], lines)


def sql_of(ground: Ground, configuration: Configuration) -> list[str]:
    """Return what puts `configuration` in force, but for the reload; of our own concurrency no server knows."""
    changed = configuration.difference(ground.initial)
    return [
        f"ALTER SYSTEM SET {name} = '{shown(name, new, ground.catalogue)}';"
        for name, (_, new) in changed.items()
        if name in ground.settings
    ]


def left_out_table(ground: Ground) -> Table:
    """Return which knobs are not tuned on this server, and why."""
    return Table("Not tuned here", ("knob", "why"), sorted(ground.catalogue.left_out.items()))


def restart_tables(ground: Ground) -> list[Table]:
    """Return a table of what only a restart would bring; none where the rules have no such advice."""
    advice = ground.advice()
    rows = [
        (
            name,
            shown(name, ground.settings[name].value, ground.catalogue),
            shown(name, value, ground.catalogue),
            advice.reasons.get(name, ""),
        )
        for name, value in advice.restart_advice.items()
        if name in ground.settings
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
