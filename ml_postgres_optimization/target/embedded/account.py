"""The operating system's account that runs the server: PostgreSQL refuses to run as root."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True, slots=True)
class Account:
    """Who runs the server, and how to run a program as that account.

    Parameters
    ----------
    name : str
        Its name.
    uid, gid : int
        Its numbers.
    switched : bool
        Whether it is another than ours, so that each program must change to it.
    """

    name: str
    uid: int
    gid: int
    switched: bool

    def process_arguments(self) -> dict[str, Any]:
        """Return what `subprocess.Popen` needs to run a program as this account, in a clean environment.

        The program starts in ``/`` (our own working directory may be closed to the account) and in a session of its
        own, so that a Ctrl-C on the terminal reaches us alone and settings can be put back before the server stops.
        """
        arguments: dict[str, Any] = {
            "cwd": "/",
            "env": self.environment(),
            "stdin": subprocess.DEVNULL,
            "start_new_session": True,
        }
        if self.switched:
            arguments |= {"user": self.uid, "group": self.gid, "extra_groups": []}
        return arguments

    def environment(self) -> Mapping[str, str]:
        """Return the clean environment: no ``PG*`` variable of the user's reaches the server."""
        return {"PATH": SYSTEM_PATH, "HOME": "/", "LC_MESSAGES": "C", "TZ": "UTC"}

    def run(self, command: Sequence[str | Path], timeout_seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run `command` to its end as this account; its output is captured, its exit code is not judged.

        Raises
        ------
        OSError
            If the program cannot be started at all.
        subprocess.TimeoutExpired
            If it takes longer than `timeout_seconds`.
        """
        arguments = [str(part) for part in command]
        return subprocess.run(
            arguments,
            check=False,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            **self.process_arguments(),
        )

    def can_enter(self, folder: Path) -> bool:
        """Tell whether the account may traverse `folder` and all above it; the kernel is asked, not the modes."""
        return self.run(["test", "-x", folder]).returncode == 0

    def can_run(self, program: Path) -> bool:
        """Tell whether the account can execute `program`, its shared libraries included."""
        try:
            return self.run([program, "--version"]).returncode == 0
        except OSError:
            return False

    def give(self, folder: Path) -> None:
        """Hand an existing, empty `folder` of ours over to the account, closed to all others."""
        folder.chmod(0o700)
        if self.switched:
            os.chown(folder, self.uid, self.gid)


def server_account() -> Account:
    """Return who runs the server: ourselves, or when we are root ``postgres``, else ``nobody``."""
    if os.geteuid() != 0:
        return Account(_own_name(), os.geteuid(), os.getegid(), switched=False)
    entry = _entry("postgres") or pwd.getpwnam("nobody")
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, switched=True)


def _entry(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _own_name() -> str:
    """Return our account's name; containers often run under a number without one."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
