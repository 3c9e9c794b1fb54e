"""Where state and logs are kept."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ml_postgres_optimization.errors import StateError

PROBE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Home:
    """The folders of one installation.

    Parameters
    ----------
    state : Path
        Journals, models, studies, the embedded server.
    logs : Path
        Structured logs, CSV, reports.
    """

    state: Path
    logs: Path

    @property
    def embedded(self) -> Path:
        """The embedded server's folder."""
        return self.state / "embedded"

    def of_server(self, system_identifier: str) -> Path:
        """Return the folder of one server's journal, models and studies."""
        return self.state / "servers" / system_identifier

    def runs_of(self, system_identifier: str) -> Path:
        """Return the folder of one server's extended tests, each in a folder of its own."""
        return self.of_server(system_identifier) / "soaks"

    def all_runs(self) -> list[Path]:
        """Return the folders of the extended tests of every server that we have tested."""
        return sorted((self.state / "servers").glob("*/soaks"))

    def studies_of(self, system_identifier: str) -> Path:
        """Return the folder of one server's studies."""
        return self.of_server(system_identifier) / "studies"

    def studies_of_others(self, system_identifier: str) -> list[Path]:
        """Return the folders of the studies of all other servers that we have worked on."""
        own = self.studies_of(system_identifier)
        return sorted(folder for folder in (self.state / "servers").glob("*/studies") if folder != own)

    def prepare(self) -> None:
        """Make the folders, for us alone, and prove that they can be written.

        Raises
        ------
        StateError
            If a folder cannot be made or written, or belongs to another user.
        """
        for folder, name in ((self.state, "state"), (self.logs, "log")):
            _prepare(folder, name)

    def prepare_for(self, system_identifier: str) -> None:
        """Make the folder of one server, for us alone; one of an earlier version that others may enter is closed.

        Raises
        ------
        StateError
            If it cannot be made, or belongs to another user.
        """
        folder = self.of_server(system_identifier)
        for each in (folder.parent, folder):
            with _usable(each, "state"):
                each.mkdir(mode=0o700, exist_ok=True)
                _refuse_foreign(each, "state")
                each.chmod(0o700)


def resolve_home(environ: Mapping[str, str], project_root: Path | None) -> Home:
    """Choose the folders.

    Parameters
    ----------
    environ : mapping of str to str
        ``GENESIS_HOME`` wins; else ``XDG_STATE_HOME`` counts when there is no project root.
    project_root : Path or None
        The root of the project when started by ``run.py``.

    Raises
    ------
    StateError
        If that hangs on the home of a user who has none.
    """
    if environ.get("GENESIS_HOME"):
        chosen = _expanded(environ["GENESIS_HOME"]).absolute()
        return Home(chosen, chosen / "logs")
    if project_root:
        return Home(project_root / ".genesis", project_root / "logs")
    xdg = environ.get("XDG_STATE_HOME")
    state = (Path(xdg) if xdg else _expanded("~/.local/state")) / "genesis-pg"
    return Home(state, state / "logs")


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError as error:  # in a container, a user is often a mere number
        raise StateError(
            f"The state folder {path} cannot be found: that user has no home.", "Set GENESIS_HOME to a folder."
        ) from error


def prove_writable(folder: Path) -> None:
    """Write into a folder: one that may be written can still be on a full disk.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    probe = folder / f".probe-{os.getpid()}"
    probe.write_bytes(b"\0" * PROBE_BYTES)
    probe.unlink()


def _prepare(folder: Path, name: str) -> None:
    with _usable(folder, name):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_foreign(folder, name)
        prove_writable(folder)


def _refuse_foreign(folder: Path, name: str) -> None:
    owner = folder.stat().st_uid
    if owner != os.geteuid():
        raise StateError(
            f"The {name} folder {folder} belongs to user id {owner}, and we run as {os.geteuid()}.",
            "Run as its owner, or set GENESIS_HOME to a folder of your own.",
        )


@contextmanager
def _usable(folder: Path, name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StateError(
            f"The {name} folder {folder} cannot be used: {error.strerror or error}.",
            "Make room or permit writing there, or set GENESIS_HOME to another folder.",
        ) from error
