"""The two configurations that a benchmark compares: stock, and what was proven."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.interfaces.session import Session
from ml_postgres_optimization.interfaces.workbench.ground import Ground, promoted_concurrency
from ml_postgres_optimization.knobs.configuration import CONCURRENCY, Configuration
from ml_postgres_optimization.knobs.knob import KnobValue
from ml_postgres_optimization.knobs.rendering import parse, render, same_value
from ml_postgres_optimization.safety.journal import read_journal

# What initdb writes into postgresql.conf on a machine with room for it, whatever the server's own default is; all
# else is at its boot value. PostgreSQL: src/bin/initdb/initdb.c, test_config_settings and setup_config.
_OF_INITDB = {"shared_buffers": "128MB", "max_wal_size": "1GB", "min_wal_size": "80MB"}
# max_connections takes no more
_MOST_CONNECTIONS = 262_143
_LINE = re.compile(
    r"(?P<name>[A-Za-z_][\w.]*)\s*(?:=\s*|\s+)"
    r"(?:'(?P<quoted>(?:[^']|'')*)'|(?P<plain>[^\s#']+))\s*(?:#.*)?"
)


@dataclass(frozen=True, slots=True)
class Configurations:
    """What is in force, and what is compared.

    Parameters
    ----------
    initial : Configuration
        In force now, and in the end.
    base, optimised : Configuration
        Of the same knobs.
    concurrency : int or None
        Connections that go with the optimised one; None where nobody has found a number.
    origin : str
        Where the optimised one comes from, in words.
    """

    initial: Configuration
    base: Configuration
    optimised: Configuration
    concurrency: int | None
    origin: str

    def differing(self, ground: Ground) -> tuple[dict[str, str], dict[str, str]]:
        """Return what differs, of base and of the optimised one, as people write it."""
        difference = self.optimised.difference(self.base)
        shown = [
            {name: render(value, ground.settings[name].unit) for name, value in zip(difference, values, strict=True)}
            for values in zip(*difference.values(), strict=True)
            if all(value is not None for value in values)
        ]
        return (shown[0], shown[1]) if shown else ({}, {})


def stock_of(ground: Ground) -> Configuration:
    """Return the knobs that may be changed here as initdb leaves them."""
    values = {}
    for name in ground.initial:
        setting = ground.settings[name]
        text = _OF_INITDB.get(name, setting.boot_value)
        if text is not None:
            values[name] = parse(text, setting.kind, setting.unit)
    return ground.initial.replaced(values)


def compared(session: Session, ground: Ground) -> Configurations | None:
    """Return what is compared; None where nothing was named, and nothing has been promoted on the server.

    Raises
    ------
    UsageError
        If the file cannot be used.
    SchemaMissing
        If the repository is asked what was promoted, and lacks schema genesis.
    """
    base = stock_of(ground)
    path = session.settings.configuration
    if path is not None:
        values = read_configuration(path, ground)
        concurrency = values.pop(CONCURRENCY, None)
        optimised = base.replaced(values)
        return Configurations(
            ground.initial, base, optimised, None if concurrency is None else int(concurrency), f"file {path.name}"
        )
    is_promoted = bool(read_journal(session.home.of_server(session.server)).confirmed)
    if not is_promoted and ground.initial == base:
        return None
    origin = "promoted on this server" if is_promoted else "in force on this server, and not by a promotion of ours"
    return Configurations(
        ground.initial, base, ground.initial, promoted_concurrency(session) if is_promoted else None, origin
    )


def read_configuration(path: Path, ground: Ground) -> dict[str, KnobValue]:
    """Read what `tune` wrote: its JSON, or its piece of ``postgresql.conf``.

    What is in force anyway is left out where it is not ours to change.

    Raises
    ------
    UsageError
        If the file cannot be read, is neither, or sets what may not be set here.
    """
    try:
        text = path.read_text("utf-8")
        found = _of_json(text) if path.suffix == ".json" else dict(_of_conf(text, ground))
        _check_concurrency(found.get(CONCURRENCY))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        raise UsageError(
            f"Configuration {path} cannot be used: {why}.",
            "Name a .json or .conf file that genesis-pg tune has written.",
        ) from error
    return {name: value for name, value in found.items() if _is_ours(name, value, path, ground)}


def _of_json(text: str) -> dict[str, KnobValue]:
    values = json.loads(text)["best"]["values"]
    for name, value in values.items():
        if not isinstance(value, bool | int | float | str) or (isinstance(value, float) and not math.isfinite(value)):
            raise ValueError(f"{name} is {value!r}, neither number nor text")
    return dict(values)


def _check_concurrency(value: KnobValue | None) -> None:
    if isinstance(value, str):  # as a .conf has it
        value = int(value)
    is_whole = isinstance(value, int | float) and not isinstance(value, bool) and value == int(value)
    if value is not None and not (is_whole and 1 <= float(value) <= _MOST_CONNECTIONS):
        raise ValueError(f"{CONCURRENCY} is {value!r}, no whole number from 1 to {_MOST_CONNECTIONS}")


def _of_conf(text: str, ground: Ground) -> Iterator[tuple[str, KnobValue]]:
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        found = _LINE.fullmatch(stripped)
        if found is None:
            raise ValueError(f"line {number} is no setting")
        name = found["name"].lower()
        value = found["plain"] if found["quoted"] is None else found["quoted"].replace("''", "'")
        setting = ground.settings.get(name)
        # whoever asks whether it is ours says no, and why
        yield name, value if setting is None else parse(value, setting.kind, setting.unit)


def _is_ours(name: str, value: KnobValue, path: Path, ground: Ground) -> bool:
    if name == CONCURRENCY or name in ground.initial:
        return True
    setting = ground.settings.get(name)
    if setting is not None and same_value(value, setting.value, setting.kind):
        return False
    reason = _why_not(name, ground.catalogue.left_out)
    raise UsageError(
        f"{path} sets {name}, which may not be changed here: {reason}.",
        "Take it out of the file, or allow it (--allow-restart).",
    )


def _why_not(name: str, left_out: Mapping[str, str]) -> str:
    return left_out.get(name, "it needs a restart that nobody has allowed, or is no knob of the catalogue")
