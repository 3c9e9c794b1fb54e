"""See that a server would start, on a scratch data directory."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from ml_postgres_optimization.errors import ChangeRefused, EmbeddedServerFailed
from ml_postgres_optimization.target.embedded import Binaries, EmbeddedServer

_PREFIX = "genesis-pg-rehearsal-"
_TIMEOUT_SECONDS = 30.0


class Rehearsal:
    """A scratch server of the same programs, started and stopped to see that it starts.

    Parameters
    ----------
    binaries : Binaries
        Those of the server that is meant.
    parent : Path, optional
        Where the scratch data are; the system's folder for temporary files by default.

    Notes
    -----
    The first time takes about 1 s (initdb), each other 0.3 s. PostgreSQL touches its shared memory only as it uses
    it, so that a rehearsal beside the server takes little; where the system does not overcommit memory
    (``vm.overcommit_memory = 2``) it may refuse what would just have fitted, which is the safe side.
    """

    def __init__(self, binaries: Binaries, *, parent: Path | None = None) -> None:
        self._binaries = binaries
        self._parent = parent
        self._home: Path | None = None

    def play(self, values: Mapping[str, str]) -> None:
        """Start a server with `values`, and stop it.

        Parameters
        ----------
        values : mapping of str to str
            As a configuration file would say them.

        Raises
        ------
        ChangeRefused
            If it does not start with them, though it does without.
        EmbeddedServerFailed
            If it does not start without them either.
        """
        if self._home is None:
            self._home = self._made()
        try:
            self._start(values)
        except EmbeddedServerFailed as failure:
            self._start({})
            raise ChangeRefused(
                f"A server of these programs would not start with it: {failure.what}",
                "Nothing was changed. Leave it out, or give the machine what the message asks for.",
            ) from failure

    def close(self) -> None:
        """Remove the scratch data."""
        if self._home is not None:
            with suppress(EmbeddedServerFailed):
                EmbeddedServer.remove(self._home)
            shutil.rmtree(self._home, ignore_errors=True)
            self._home = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _made(self) -> Path:
        home = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._parent))
        # the account of the server has to come in; its data are closed to all others
        home.chmod(0o755)
        return home

    def _start(self, values: Mapping[str, str]) -> None:
        if self._home is None:
            raise EmbeddedServerFailed("The rehearsal is over.", "Make another.")
        EmbeddedServer.start(
            self._home, binaries=self._binaries, settings=values, timeout_seconds=_TIMEOUT_SECONDS
        ).stop()
