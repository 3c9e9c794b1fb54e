"""Whether a server runs on this machine, proved by its processes rather than guessed from its address."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import psutil
from psycopg import Connection
from psycopg.rows import class_row

# /proc counts a process's start in ticks of 10 ms since boot; the boot time is rounded to a second
_START_TOLERANCE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class _Session:
    backend_pid: int
    backend_start_seconds: float | None
    data_directory: str | None


def postmaster_pid_if_local(connection: Connection[Any]) -> int | None:
    """Return the postmaster's process id, when the session behind `connection` is served by this machine.

    The address proves nothing: a Unix socket may lead into a container, a port on loopback through a tunnel. The
    server runs here if a process of this machine has the id *and* the start time that the server says of our session.

    Raises
    ------
    psycopg.OperationalError
        If the connection is lost.
    """
    return _postmaster_pid(_read_session(connection))


def program_folder(process_id: int) -> Path | None:
    """Return the folder of the program that a process of this machine runs; None where that cannot be seen."""
    try:
        return Path(psutil.Process(process_id).exe()).parent
    except psutil.Error:
        return None


def data_directory_if_local(connection: Connection[Any]) -> Path | None:
    """Return the server's data directory, when it can be seen from here and belongs to this very server.

    It need not be readable: its file system counts. The role must be able to read the setting (``pg_monitor``).

    Raises
    ------
    psycopg.OperationalError
        If the connection is lost.
    """
    session = _read_session(connection)
    pid = _postmaster_pid(session)
    if pid is None or session.data_directory is None:
        return None
    directory = Path(session.data_directory)
    return directory if _belongs_to(directory, pid) else None


def _read_session(connection: Connection[Any]) -> _Session:
    query = (files("ml_postgres_optimization.target.host") / "sql" / "locality.sql").read_bytes()
    with connection.cursor(row_factory=class_row(_Session)) as cursor:
        return cursor.execute(query).fetchall()[0]


def _postmaster_pid(session: _Session) -> int | None:
    if session.backend_start_seconds is None:  # hidden from the role that ours is set to (ALTER ROLE ... SET role)
        return None
    try:
        backend = psutil.Process(session.backend_pid)
        late_seconds = backend.create_time() - session.backend_start_seconds
        return backend.ppid() if abs(late_seconds) <= _START_TOLERANCE_SECONDS else None
    except psutil.Error:
        return None


def _belongs_to(directory: Path, postmaster_pid: int) -> bool:
    """Tell whether `directory` is there and, where we may read it, names this postmaster."""
    try:
        is_there = directory.is_dir()
    except PermissionError:
        return False
    try:
        return is_there and int((directory / "postmaster.pid").read_text().split("\n", 1)[0]) == postmaster_pid
    except PermissionError:
        return is_there
    except (OSError, ValueError):
        return False
