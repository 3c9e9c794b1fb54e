"""Where windows are kept."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from ml_postgres_optimization.telemetry.window import Window


class WindowStore(Protocol):
    """Keep windows, and give them back in the order of time."""

    def add(self, window: Window) -> None:
        """Keep `window`."""

    def windows(self, *, since: datetime | None = None, run: str | None = None) -> Sequence[Window]:
        """Return the kept windows, oldest first, of one run where one is named."""


class MemoryStore:
    """Windows in memory: for tests, simulations and a run without a repository."""

    def __init__(self) -> None:
        self._windows: list[Window] = []

    def add(self, window: Window) -> None:
        """Keep `window`."""
        self._windows.append(window)

    def windows(self, *, since: datetime | None = None, run: str | None = None) -> Sequence[Window]:
        """Return the kept windows, oldest first."""
        return [
            window
            for window in sorted(self._windows, key=lambda window: window.started_at)
            if (since is None or window.ended_at > since) and (run is None or window.labels.get("run") == run)
        ]
