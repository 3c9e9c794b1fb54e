"""A workload as a folder of scripts."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.workload.script.command import Script
from ml_postgres_optimization.workload.script.parsing import MAXIMUM_WEIGHT, parse_script, split_statements
from ml_postgres_optimization.workload.script.source import printable

SETUP = "setup.sql"
# A client notes in one byte which of them it ran.
MAXIMUM_SCRIPTS = 256
MAXIMUM_BYTES = 1_000_000
MAXIMUM_SETUP_BYTES = 8_000_000
_SUFFIX = ".sql"
_PGBENCH_SPELLING = re.compile(r"(?P<stem>.+)\.sql@(?P<weight>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Setup:
    """What prepares a server of ours for a workload.

    Parameters
    ----------
    path : Path
    text : str
    statements : tuple of str
        Of the text, each to be executed by itself: VACUUM and the like stand in no transaction.
    """

    path: Path
    text: str
    statements: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Folder:
    """A workload of the user's.

    Parameters
    ----------
    path : Path
    scripts : tuple of Script
        By name; all of a weight above 0.
    setup : Setup or None
        Where there is a ``setup.sql``.
    """

    path: Path
    scripts: tuple[Script, ...]
    setup: Setup | None


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    name: str
    weight: int


def read_workload(path: Path, variables: Collection[str] = ()) -> Folder:
    """Read every ``*.sql`` directly in a folder; ``NAME@WEIGHT.sql`` has that weight, any other 1.

    Parameters
    ----------
    path : Path
    variables : collection of str
        Names that will be set beside the built-in ones, by whoever plays the scripts.

    Returns
    -------
    Folder

    Raises
    ------
    UsageError
        If there is no script in it that can be played, or one is wrong: with file, line and column.

    Notes
    -----
    Files whose name begins with a dot are left out, since editors and file managers make them.
    """
    paths = _entries(path)
    files = [_file(each) for each in paths if each.name != SETUP]
    _check_names(path, files)
    weighted = [file for file in files if file.weight]
    if not weighted:
        raise UsageError(
            f"the weight of every script in {_shown(path)} is 0",
            "Give one a weight above 0: name it NAME@WEIGHT.sql.",
        )
    scripts = tuple(_script(file, variables) for file in weighted)
    return Folder(path, scripts, _setup(paths))


def _entries(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"the workload {_shown(folder)} cannot be read: {_reason(error)}", "Name a folder with files *.sql in it."
        ) from error
    for name in names:
        _check_spelling(name)
    found = [folder / name for name in names if name.endswith(_SUFFIX)]
    count = sum(path.name != SETUP for path in found)
    if not count:
        raise UsageError(f"there is no script in {_shown(folder)}", "Put files *.sql in it, each a transaction.")
    if count > MAXIMUM_SCRIPTS:
        raise UsageError(f"there are {count} scripts in {_shown(folder)}", f"Keep at most {MAXIMUM_SCRIPTS}.")
    return found


def _check_spelling(name: str) -> None:
    found = _PGBENCH_SPELLING.fullmatch(name)
    if found is not None:
        raise UsageError(
            f"the file {printable(name)} is spelt as on pgbench's command line",
            f"Name it {printable(found['stem'])}@{printable(found['weight'])}.sql.",
        )


def _file(path: Path) -> _File:
    stem = path.name.removesuffix(_SUFFIX)
    name, mark, weight = stem.rpartition("@")
    if not mark:
        name, weight = stem, "1"
    if not name or not name.isprintable():
        raise UsageError(f"the name of the file {printable(path.name)} is none for a script", "Rename it NAME.sql.")
    if not re.fullmatch(r"[0-9]{1,10}", weight) or int(weight) > MAXIMUM_WEIGHT:
        raise UsageError(
            f"the weight '{printable(weight)}' of the file {printable(path.name)} is not allowed",
            f"Name it NAME@WEIGHT.sql with a whole number from 0 to {MAXIMUM_WEIGHT}, or without @.",
        )
    return _File(path, name, int(weight))


def _check_names(folder: Path, files: Iterable[_File]) -> None:
    seen: dict[str, Path] = {}
    for file in files:
        other = seen.setdefault(file.name, file.path)
        if other is not file.path:
            raise UsageError(
                f"{printable(other.name)} and {printable(file.path.name)} in {_shown(folder)} are the same script",
                "Keep one of them, or rename it.",
            )


def _script(file: _File, variables: Collection[str]) -> Script:
    origin = printable(file.path.name)
    text = _text(file.path, MAXIMUM_BYTES)
    return parse_script(text, name=file.name, weight=file.weight, variables=variables, origin=origin)


def _setup(paths: Iterable[Path]) -> Setup | None:
    path = next((path for path in paths if path.name == SETUP), None)
    if path is None:
        return None
    text = _text(path, MAXIMUM_SETUP_BYTES)
    statements = split_statements(text, origin=SETUP)
    if not statements:
        raise UsageError(f"{SETUP}: there is no statement in it", "Write what makes the tables, or remove it.")
    return Setup(path, text, statements)


def _text(path: Path, maximum_bytes: int) -> str:
    content = _content(path, maximum_bytes)
    if len(content) > maximum_bytes:
        raise UsageError(
            f"the file {printable(path.name)} has more than {maximum_bytes} bytes", "Divide it over several files."
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(
            f"{printable(path.name)}, line {line}: byte {error.start} is not UTF-8", "Save the file in UTF-8."
        ) from error


def _content(path: Path, maximum_bytes: int) -> bytes:
    try:
        # a named pipe would be waited for for ever
        if not stat.S_ISREG(path.stat().st_mode):
            raise UsageError(f"{printable(path.name)} is no file", "Rename it, or move it out of the workload.")
        with path.open("rb") as file:
            return file.read(maximum_bytes + 1)
    except OSError as error:
        raise UsageError(
            f"the file {printable(path.name)} cannot be read: {_reason(error)}", "Make it readable, or remove it."
        ) from error


def _shown(folder: Path) -> str:
    return printable(str(folder), limit=200)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) and error.strerror else str(error)).lower()
