"""A tuned configuration as files: SQL, a piece of ``postgresql.conf``, and JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from ml_postgres_optimization.errors import StateError
from ml_postgres_optimization.interfaces.home import prove_writable
from ml_postgres_optimization.interfaces.reporter import json_text
from ml_postgres_optimization.interfaces.trial_view import interval_text, shown
from ml_postgres_optimization.knobs.catalogue import Catalogue
from ml_postgres_optimization.knobs.knob import Scope
from ml_postgres_optimization.target.postgres.connection.settings import on_one_line
from ml_postgres_optimization.tuning.offline import Tuned


def sql_text(tuned: Tuned, catalogue: Catalogue, heading: str) -> str:
    """Return the configuration as statements for ``psql``; what needs a restart comes last."""
    lines = [f"-- {line}" for line in _heading(tuned, heading)]
    online, restart = _changes(tuned, catalogue)
    lines += [f"ALTER SYSTEM SET {name} = '{value}';" for name, value in online.items()]
    if restart:
        lines += ["", "-- These take effect with the next restart of the server:"]
        lines += [f"ALTER SYSTEM SET {name} = '{value}';" for name, value in restart.items()]
    return "\n".join([*lines, "", "SELECT pg_reload_conf();", ""])


def conf_text(tuned: Tuned, catalogue: Catalogue, heading: str) -> str:
    """Return the configuration as a file for ``include`` or ``conf.d``."""
    lines = [f"# {line}" for line in _heading(tuned, heading)]
    online, restart = _changes(tuned, catalogue)
    before = {name: shown(name, tuned.initial.get(name), catalogue) for name in (*online, *restart)}
    lines += [f"{name} = '{value}'  # was {before[name]}" for name, value in online.items()]
    lines += [f"{name} = '{value}'  # was {before[name]}; needs a restart" for name, value in restart.items()]
    return "\n".join([*lines, ""])


def require_writable(folder: Path) -> None:
    """See, before hours of work, that the folder for their result can be made and written.

    Raises
    ------
    StateError
        If it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        prove_writable(folder)
    except OSError as error:
        raise StateError(
            f"The configuration could not be written to {folder}: {error.strerror or error}.",
            "Name another folder with --output.",
        ) from error


def write_artefacts(folder: Path, stem: str, texts: Mapping[str, str]) -> dict[str, Path]:
    """Write one file for each suffix, and return their paths.

    Raises
    ------
    StateError
        If the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = {}
        for suffix, text in texts.items():
            written[suffix] = folder / f"{stem}.{suffix}"
            written[suffix].write_text(text, encoding="utf-8")
    except OSError as error:
        raise StateError(
            f"The configuration cannot be written to {folder}: {error.strerror or error}.",
            "Name another folder with --output; genesis-pg history shows what was found.",
        ) from error
    return written


def texts_of(tuned: Tuned, catalogue: Catalogue, heading: str, document: Mapping[str, object]) -> dict[str, str]:
    """Return the content of each file by its suffix."""
    return {
        "sql": sql_text(tuned, catalogue, heading),
        "conf": conf_text(tuned, catalogue, heading),
        "json": json_text(document),
    }


def _heading(tuned: Tuned, heading: str) -> Iterator[str]:
    # a folder of scripts may be called anything, and a line break would end the comment
    yield on_one_line(heading)
    if tuned.best == tuned.initial:
        yield "Nothing better than what was in force was found: there is nothing to set."
    elif tuned.proven is None:
        yield "Preferred by a few pairs of blocks each, and NOT proven against what was in force before."
    else:
        proven = "Proven" if tuned.is_proven else "Measured, and NOT proven,"
        yield f"{proven} against what was in force before: {interval_text(tuned.proven)} in response time."


def _changes(tuned: Tuned, catalogue: Catalogue) -> tuple[dict[str, str], dict[str, str]]:
    """Return what differs from before, as a user would write it: what a reload brings, and what a restart."""
    changed = {name: new for name, (_, new) in tuned.best.difference(tuned.initial).items()}
    texts = {name: shown(name, value, catalogue).replace("'", "''") for name, value in changed.items()}
    restart = {name: text for name, text in texts.items() if catalogue[name].scope is Scope.RESTART}
    return {name: text for name, text in texts.items() if name not in restart}, restart
