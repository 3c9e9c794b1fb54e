"""Where an embedded server lives on disk, and the sign by which we know that it is ours."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ml_postgres_optimization import __version__
from ml_postgres_optimization.errors import AlreadyRunning, EmbeddedServerFailed, StateError
from ml_postgres_optimization.target.embedded.account import Account
from ml_postgres_optimization.target.embedded.locking import try_lock

SYSTEM_STATE = Path("/var/lib/genesis-pg")
MARKER = "genesis-embedded.json"
MARKER_FORMAT = 1
PARTIAL_PREFIX = "data.partial-"


@dataclass(frozen=True, slots=True)
class Folder:
    """The folder of one embedded server.

    It belongs to us and not to the server's account, so that nothing can be slipped under files that we write; only
    the data directory in it is the account's. The marker inside the data directory is written before the directory
    gets its final name, so that a directory without one was never ours.

    Parameters
    ----------
    path : Path
        Absolute and without symbolic links, since running servers are recognised by it.
    """

    path: Path

    @property
    def data_directory(self) -> Path:
        """PostgreSQL's data directory."""
        return self.path / "data"

    @property
    def settings_file(self) -> Path:
        """The settings that a start was asked for; ``ALTER SYSTEM`` wins over them."""
        return self.path / "server.conf"

    @property
    def log_file(self) -> Path:
        """What the server says since its last start; the log before that is kept beside it."""
        return self.path / "server.log"

    @property
    def previous_log_file(self) -> Path:
        """What the server said between its last two starts."""
        return self.path / "server.log.1"

    @property
    def lock_file(self) -> Path:
        """Locked for as long as somebody owns the server."""
        return self.path / "lock"

    def lock(self) -> int:
        """Take the ownership and return the lock's descriptor.

        Raises
        ------
        AlreadyRunning
            If a living process has it.
        """
        descriptor = try_lock(self.lock_file)
        if descriptor is None:
            raise AlreadyRunning(
                f"The embedded server in {self.path} is in use by another run of this program.",
                "Wait for that run to end, or choose another folder by GENESIS_HOME.",
            )
        return descriptor

    def has_data(self) -> bool:
        """Tell whether a data directory of ours is there.

        Raises
        ------
        EmbeddedServerFailed
            If one is there that is not ours.
        """
        if (self.path / "PG_VERSION").exists():
            raise _foreign(self.path)
        if not self.data_directory.exists():
            return False
        if not _is_marked(self.data_directory):
            raise _foreign(self.data_directory)
        return True

    def data_major(self) -> int:
        """Return the major version that made the data directory."""
        return int((self.data_directory / "PG_VERSION").read_text())

    def make_partial(self, account: Account) -> Path:
        """Return a fresh directory of the account's, in which a data directory can be made.

        Its name is new each time: an initdb whose owner was killed may still be writing to the one before.
        """
        partial = Path(tempfile.mkdtemp(prefix=PARTIAL_PREFIX, dir=self.path))
        account.give(partial)
        return partial

    def adopt(self, partial: Path, account: Account) -> None:
        """Mark a complete data directory as ours, and give it its name."""
        with (partial / MARKER).open("x") as file:
            json.dump({"format": MARKER_FORMAT, "made_by": f"genesis-pg {__version__}"}, file)
            file.flush()
            os.fsync(file.fileno())
            if account.switched:
                os.fchown(file.fileno(), account.uid, account.gid)
        partial.rename(self.data_directory)

    def remove_partial(self) -> None:
        """Remove what initialisations left that were cut off in the middle."""
        for partial in self.path.glob(f"{PARTIAL_PREFIX}*"):
            shutil.rmtree(partial, ignore_errors=True)

    def rotate_log(self) -> int:
        """Begin a new log, keep the last one, and return the new one's descriptor."""
        if self.log_file.exists():
            self.log_file.replace(self.previous_log_file)
        return os.open(self.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)

    def last_log_lines(self, count: int = 3) -> str:
        """Return the log's end as one line."""
        lines = self.log_file.read_text(errors="replace").splitlines()
        return " | ".join(line.strip() for line in lines[-count:])

    def remove(self) -> None:
        """Remove the server from disk: the data directory, then what stands beside it, then the folder if empty."""
        if self.data_directory.exists():
            shutil.rmtree(self.data_directory)
        self.remove_partial()
        for file in (self.settings_file, self.log_file, self.previous_log_file, self.lock_file):
            file.unlink(missing_ok=True)
        if not any(self.path.iterdir()):
            self.path.rmdir()


def locate(home: Path, account: Account, system_state: Path) -> Folder:
    """Return the folder of the server that belongs to `home`, which must be there.

    That is `home` itself, or where the server's account cannot enter it (root's home, a private clone) a folder of
    `system_state` named by a hash of `home`. A server that was made there stays there.

    Raises
    ------
    EmbeddedServerFailed
        If the server's data are in `home`, but its account cannot enter it any more.
    """
    home = home.resolve()
    elsewhere = system_state.resolve() / hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    if not account.switched or (not elsewhere.exists() and account.can_enter(home)):
        return Folder(home)
    if (home / "data").exists() and not elsewhere.exists():
        raise EmbeddedServerFailed(
            f"The embedded server's data are in {home}, which user {account.name} cannot enter any more.",
            f"Let it: chmod o+x {home} (and the folders above it); or choose another folder by GENESIS_HOME.",
        )
    return Folder(elsewhere)


def make(home: Path, account: Account, system_state: Path) -> Folder:
    """Return the folder of the server that belongs to `home`, made if it is missing (see `locate`)."""
    home.mkdir(parents=True, exist_ok=True)
    folder = locate(home, account, system_state)
    if not folder.path.exists():
        make_for_all_to_enter(folder.path)
    return folder


def make_for_all_to_enter(path: Path) -> None:
    """Make a folder under the system's state that the server's account can enter, whatever our umask is."""
    path.mkdir(parents=True, exist_ok=True)
    for folder in (path, path.parent):
        folder.chmod(0o755)


@contextmanager
def usable(home: Path) -> Iterator[None]:
    """Turn the operating system's refusals inside the block into an error for the user.

    Raises
    ------
    StateError
        If a file or folder cannot be read or written.
    """
    try:
        yield
    except OSError as error:
        raise StateError(
            f"The embedded server of {home} cannot be used: {error}.",
            "Mend that, run as the user who made it, or choose another folder by GENESIS_HOME.",
        ) from error


def _is_marked(directory: Path) -> bool:
    try:
        marker = json.loads((directory / MARKER).read_text())
    except (FileNotFoundError, ValueError):
        return False
    return isinstance(marker, dict) and marker.get("format") == MARKER_FORMAT


def _foreign(directory: Path) -> EmbeddedServerFailed:
    return EmbeddedServerFailed(
        f"{directory} was not made by this program (or by a newer one); it is left as it is.",
        "Choose another folder by GENESIS_HOME, or connect to that server by --dsn.",
    )
