"""What the journal needs of the disk: a folder for us alone, one writer, and writes that have arrived."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from ml_postgres_optimization.errors import AlreadyRunning, StateError

LOCK_FILE = "journal.lock"
OPEN_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


def is_in_use(directory: Path) -> bool:
    """Tell whether a process has the journal in `directory` open."""
    try:
        lock = os.open(directory / LOCK_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def write_new(path: Path, data: bytes) -> None:
    """Write a whole file, and wait until it is on disk."""
    file = os.open(path, OPEN_FLAGS | os.O_TRUNC, 0o600)
    try:
        write_all(file, data)
        os.fsync(file)
    finally:
        os.close(file)


def make_private(directory: Path) -> None:
    """Make the folder, for us alone, and see that it and its parents are on disk."""
    try:
        missing = [folder for folder in (directory, *directory.parents) if not folder.exists()]
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for made in missing:
            sync_directory(made.parent)
        status = directory.stat()
        if status.st_mode & 0o077:
            directory.chmod(0o700)
    except OSError as error:
        raise _closed_folder(directory, error) from error
    if status.st_uid != os.geteuid():
        raise StateError(  # who owns a folder can put another journal into it at any time
            f"The state folder {directory} belongs to user id {status.st_uid}, and we run as {os.geteuid()}.",
            "Run as its owner, or set GENESIS_HOME to a folder of your own.",
        )


def locked(path: Path) -> int:
    """Open a file as the only one that does.

    Raises
    ------
    AlreadyRunning
        If another process has it open.
    StateError
        If it cannot be opened.
    """
    try:
        lock = os.open(path, OPEN_FLAGS, 0o600)
    except OSError as error:
        raise _closed_folder(path.parent, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(lock, 20, 0).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        if not isinstance(error, BlockingIOError):
            raise _closed_folder(path.parent, error) from error
        raise AlreadyRunning(
            f"Another process of ours (pid {holder}) works with the journal in {path.parent}.",
            "Wait until it ends, or stop it with Ctrl-C or SIGTERM.",
        ) from error
    # Only for that message: a full disk must not keep us from undoing what is unfinished.
    with suppress(OSError):
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
    return lock


def _closed_folder(directory: Path, error: OSError) -> StateError:
    return StateError(
        f"The state folder {directory} cannot be used: {error.strerror or error}.",
        "Make room or permit writing there, or set GENESIS_HOME to another folder.",
    )


def all_of(file: int) -> bytes:
    """Return what an open file holds."""
    with open(file, "rb", closefd=False) as stream:  # a descriptor, which has no path
        return stream.read()


def write_all(file: int, data: bytes) -> None:
    """Write all of it, in several goes where need be."""
    while data:
        data = data[os.write(file, data) :]


def sync_directory(directory: Path) -> None:
    """Wait until the names of files in a folder are on disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
