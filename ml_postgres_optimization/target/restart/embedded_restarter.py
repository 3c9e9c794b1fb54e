"""Restart the server that is our own."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from ml_postgres_optimization.target.embedded import EmbeddedServer
from ml_postgres_optimization.target.restart.auto_conf import restart_or_rescue
from ml_postgres_optimization.target.restart.rehearsal import Rehearsal


class EmbeddedRestarter:
    """Restart an embedded server; implements `target.protocols.Restarter`.

    Parameters
    ----------
    server : EmbeddedServer
        Running, and owned by this process.
    """

    def __init__(self, server: EmbeddedServer) -> None:
        self._server = server
        self._rehearsal = Rehearsal(server.binaries)

    def rehearse(self, values: Mapping[str, str]) -> None:
        """See that a server of the same programs would start with `values`.

        Raises
        ------
        ChangeRefused
            If it would not.
        EmbeddedServerFailed
            If that cannot be found out.
        """
        self._rehearsal.play(values)

    def restart(self, rescue: Mapping[str, str | None]) -> None:
        """Restart the server, and bring it back under `rescue` should it not start.

        Raises
        ------
        ChangeRefused
            If it had to be brought back.
        EmbeddedServerFailed
            If it does not start at all.
        """
        restart_or_rescue(self._server.restart, self._server.data_directory, rescue)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rehearsal.close()
