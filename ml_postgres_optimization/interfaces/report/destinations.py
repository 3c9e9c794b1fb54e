"""Files that a user asked for: whole or not there, and never over what is not ours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ml_postgres_optimization.errors import StateError, UsageError
from ml_postgres_optimization.interfaces.report.page import GENERATOR
from ml_postgres_optimization.telemetry.export import write_whole

# Where our pages and pictures name their maker.
_HEAD_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Destination:
    """A file to be written.

    Parameters
    ----------
    path : Path
    content : bytes
        Names `GENERATOR` in its first kilobyte.
    option : str
        What the user chose the place with.
    """

    path: Path
    content: bytes
    option: str


def write_all(destinations: Iterable[Destination]) -> list[Path]:
    """Write the files, in place of what earlier calls wrote, and return where they are.

    Raises
    ------
    UsageError
        If a file of somebody else's is in the way; nothing has been written then.
    StateError
        If a file cannot be written; it is not there then, or is as it was.
    """
    wanted: Sequence[Destination] = tuple(destinations)
    for destination in wanted:
        _refuse_foreign(destination)
    for destination in wanted:
        _write(destination)
    return [destination.path for destination in wanted]


def _refuse_foreign(destination: Destination) -> None:
    path = destination.path
    try:
        if not path.is_file():
            return
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise _unwritable(destination, error) from error
    if head and GENERATOR.encode() not in head:
        raise UsageError(
            f"{path} is there and was not made by {GENERATOR}: it is left as it is.",
            f"Move it away, or choose another {destination.option}.",
        )


def _write(destination: Destination) -> None:
    try:
        destination.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(destination.path, lambda partial: partial.write_bytes(destination.content))
    except OSError as error:
        raise _unwritable(destination, error) from error


def _unwritable(destination: Destination, error: OSError) -> StateError:
    return StateError(
        f"{destination.path} cannot be written: {error.strerror or error}.",
        f"Choose another {destination.option}, or make room.",
    )
