"""Make the data directory: a database cluster, as PostgreSQL calls it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ml_postgres_optimization.errors import EmbeddedServerFailed
from ml_postgres_optimization.target.embedded.account import Account
from ml_postgres_optimization.target.embedded.binaries import Binaries, all_binaries
from ml_postgres_optimization.target.embedded.folder import MARKER, Folder

SUPERUSER = "postgres"
INITDB_TIMEOUT_SECONDS = 120.0
BASEBACKUP_TIMEOUT_SECONDS = 600.0


def initialise(folder: Folder, binaries: Binaries, account: Account) -> None:
    """Make the data directory under a temporary name, and give it its own when it is complete.

    Raises
    ------
    EmbeddedServerFailed
        If initdb fails; nothing is left then.
    """
    folder.remove_partial()
    try:
        partial = folder.make_partial(account)
        _run_initdb(partial, binaries, account)
        folder.adopt(partial, account)
    finally:
        folder.remove_partial()


def copy_cluster(folder: Folder, binaries: Binaries, account: Account, dsn: str) -> None:
    """Make the data directory of a standby, as a copy of a running server's by pg_basebackup.

    Raises
    ------
    EmbeddedServerFailed
        If data are there already, no pg_basebackup can copy them, or it fails; nothing is left then.
    """
    if folder.has_data():
        raise EmbeddedServerFailed(f"A server is in {folder.path} already.", "Choose an empty folder.")
    program = _basebackup_for(binaries, account)
    folder.remove_partial()
    try:
        partial = folder.make_partial(account)
        command: list[str | Path] = [
            *(program, "--dbname", dsn, "--pgdata", partial),
            *("--checkpoint=fast", "--write-recovery-conf"),
        ]
        _run_basebackup(command, account)
        # the copy of its primary's
        (partial / MARKER).unlink(missing_ok=True)
        folder.adopt(partial, account)
    finally:
        folder.remove_partial()


def _run_basebackup(command: Sequence[str | Path], account: Account) -> None:
    try:
        answer = account.run(command, BASEBACKUP_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise EmbeddedServerFailed(
            f"pg_basebackup took longer than {BASEBACKUP_TIMEOUT_SECONDS:g} s.",
            "Copy a smaller server, or one that has less to do.",
        ) from error
    if answer.returncode != 0:
        reason = " | ".join(answer.stderr.strip().splitlines()[-3:])
        raise EmbeddedServerFailed(
            f"pg_basebackup failed: {reason}",
            "See the server's log; it needs wal_level=replica and max_wal_senders.",
        )


def _basebackup_for(binaries: Binaries, account: Account) -> Path:
    """Return a pg_basebackup of the same or a newer major version: an older one refuses the server."""
    for candidate in (binaries, *reversed(all_binaries())):
        program = candidate.program("pg_basebackup")
        if candidate.major >= binaries.major and program.exists() and account.can_run(program):
            return program
    raise EmbeddedServerFailed(
        f"No pg_basebackup is installed that can copy a PostgreSQL {binaries.major}.",
        "Install PostgreSQL's client programs of that version or a newer one.",
    )


def system_identifier(data_directory: Path) -> str:
    """Return the number that initdb gave to a cluster, from its control file: the server need not run.

    Raises
    ------
    OSError
        If it cannot be read.

    References
    ----------
    PostgreSQL, src/include/catalog/pg_control.h: it comes first, in the machine's own byte order.
    """
    with (data_directory / "global" / "pg_control").open("rb") as file:
        return str(int.from_bytes(file.read(8), sys.byteorder))


def binaries_for(folder: Folder, binaries: Binaries) -> Binaries:
    """Return `binaries`, or others of the major version that made the data directory which is there.

    Raises
    ------
    EmbeddedServerFailed
        If no PostgreSQL of that version is installed. The data are left as they are.
    """
    major = folder.data_major()
    if binaries.major == major:
        return binaries
    for candidate in all_binaries():
        if candidate.major == major:
            return candidate
    raise EmbeddedServerFailed(
        f"The data in {folder.data_directory} were made by PostgreSQL {major}, which is not installed here.",
        f"Name the programs of {major} by --pg-bin, or choose another folder by GENESIS_HOME.",
    )


def write_settings(folder: Folder, settings: Mapping[str, str]) -> None:
    """Write the configuration file that the server reads: what initdb chose, then `settings`.

    They are not given on the command line, which would win over ``ALTER SYSTEM``.
    """
    lines = ["include 'data/postgresql.conf'", *(f"{name} = {_quoted(value)}" for name, value in settings.items())]
    folder.settings_file.write_text("\n".join(lines) + "\n")
    folder.settings_file.chmod(0o644)


def _run_initdb(directory: Path, binaries: Binaries, account: Account) -> None:
    command: list[str | Path] = [
        *(binaries.program("initdb"), "--pgdata", directory, "--username", SUPERUSER),
        *("--encoding", "UTF8", "--locale", _locale(account), "--data-checksums"),
        *("--auth-local", "trust", "--auth-host", "scram-sha-256"),
    ]
    try:
        answer = account.run(command, INITDB_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise _initdb_failed(f"it took longer than {INITDB_TIMEOUT_SECONDS:g} s", binaries) from error
    if answer.returncode != 0:
        raise _initdb_failed(" | ".join(answer.stderr.strip().splitlines()[-3:]), binaries)


def _initdb_failed(reason: str, binaries: Binaries) -> EmbeddedServerFailed:
    return EmbeddedServerFailed(
        f"initdb of PostgreSQL {binaries.version} failed: {reason}",
        "Make room in that file system, choose another folder by GENESIS_HOME, or other programs by --pg-bin.",
    )


def _locale(account: Account) -> str:
    """Return C.UTF-8 where the system has it: the same order on every machine, and letters are letters."""
    try:
        names = {name.lower().replace("-", "") for name in account.run(["locale", "-a"]).stdout.split()}
    except OSError:
        return "C"
    return "C.UTF-8" if "c.utf8" in names else "C"


def _quoted(value: str) -> str:
    """Quote for a configuration file, whose strings know backslashes beside doubled quotes."""
    escaped = value.replace("\\", "\\\\").replace("'", "''").replace("\n", "\\n")
    return f"'{escaped}'"
