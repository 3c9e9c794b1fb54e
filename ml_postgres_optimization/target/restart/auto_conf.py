"""``postgresql.auto.conf`` of a server that is down: nobody else can take a bad value out of it then."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from ml_postgres_optimization.errors import ChangeRefused, TargetError

FILE_NAME = "postgresql.auto.conf"
_LINE = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_.]*)\s*=\s*(?:'((?:[^']|'')*)')?")


def restart_or_rescue(restart: Callable[[], None], data_directory: Path, rescue: Mapping[str, str | None]) -> None:
    """Restart; where the server does not start, put `rescue` into its file, and start it as it was.

    Parameters
    ----------
    restart : callable
        Stops the server, if it runs, and starts it; raises `TargetError` where it does not start.
    data_directory : Path
    rescue : mapping of str to str or None
        What the file said before; None where it said nothing.

    Raises
    ------
    ChangeRefused
        If it was rescued, and runs again.
    TargetError
        If it starts neither way; what was to be put back is back in the file.
    """
    try:
        restart()
    except TargetError as failure:
        if not rescue:
            raise
        put_back(data_directory / FILE_NAME, rescue)
        restart()
        raise ChangeRefused(
            f"The server did not start with it: {failure.what}",
            "It runs again as before, and nothing needs to be done.",
        ) from failure


def written(file: Path) -> dict[str, str]:
    """Return what the file says: parameter → value, as it would stand in ``pg_file_settings``.

    Raises
    ------
    TargetError
        If the file cannot be read.
    """
    try:
        lines = file.read_text("utf-8").splitlines()
    except OSError as error:
        raise TargetError(
            f"{file} of a server that is down cannot be read: {error.strerror or error}.",
            "Run as the user who runs the server.",
        ) from error
    matches = filter(None, map(_LINE.match, lines))
    return {match[1].lower(): _unquoted(match[2]) for match in matches if match[2] is not None}


def put_back(file: Path, written: Mapping[str, str | None]) -> None:
    """Let the file say of these parameters what it said before; of the others it says what it does.

    Parameters
    ----------
    file : Path
        As ``ALTER SYSTEM`` writes it: one parameter to a line.
    written : mapping of str to str or None
        None takes a parameter out.

    Raises
    ------
    TargetError
        If the file cannot be read or written; it is as it was then.
    """
    try:
        kept = [line for line in file.read_text("utf-8").splitlines() if _name(line) not in written]
        entries = [f"{name} = {_quoted(value)}" for name, value in written.items() if value is not None]
        _replace(file, "\n".join([*kept, *entries]) + "\n")
    except OSError as error:
        raise TargetError(
            f"The server does not start, and {file} cannot be mended: {error.strerror or error}.",
            f"Take these lines out of it by hand, and start the server: {', '.join(written)}.",
        ) from error


def _name(line: str) -> str | None:
    match = _LINE.match(line)
    return match[1].lower() if match else None


def _unquoted(text: str) -> str:
    return text.replace("''", "'").replace("\\\\", "\\")


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "''").replace("\n", "\\n")
    return f"'{escaped}'"


def _replace(file: Path, text: str) -> None:
    """Write the file anew under its name, with its owner and mode, all or nothing."""
    status = file.stat()
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f"{file.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as partial:
            partial.write(text)
            partial.flush()
            os.fchmod(partial.fileno(), status.st_mode & 0o7777)
            if os.geteuid() == 0:
                os.fchown(partial.fileno(), status.st_uid, status.st_gid)
            os.fsync(partial.fileno())
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
