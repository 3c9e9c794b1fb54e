"""What run it is: written once, at its beginning."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from ml_postgres_optimization.errors import JournalError

FORMAT = 3


@dataclass(frozen=True, slots=True)
class RunDescription:
    """What run it is, and all that another runner needs to go on with it.

    Parameters
    ----------
    run : str
        Its name, which sorts by time.
    server : str
        System identifier of the server.
    database, display, version : str
        The database; where it is, without a password; of the server.
    started_at : datetime
        Aware; interval n lies n times `interval_seconds` after it.
    duration_seconds, interval_seconds : float
    seed : int
    load : mapping of str to object
        What was offered, JSON-ready: ``rate_per_second``, ``connections``, ``mix``, ``shape``, …
    labels : mapping of str to str
        Put on every window.
    program : str
        Version of ours that began it.
    """

    run: str
    server: str
    database: str
    display: str
    version: str
    started_at: datetime
    duration_seconds: float
    interval_seconds: float
    seed: int
    load: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    program: str = ""

    @property
    def intervals_total(self) -> int:
        """How many intervals it has, the last of which may be shorter."""
        whole, rest = divmod(self.duration_seconds, self.interval_seconds)
        return int(whole) + (rest > 1e-6 * self.interval_seconds)

    def to_bytes(self) -> bytes:
        """Return it as JSON, with the format of the journal."""
        content = asdict(self) | {"started_at": self.started_at.isoformat(), "format": FORMAT}
        return json.dumps(content, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, payload: bytes) -> RunDescription:
        """Rebuild what `to_bytes` gave.

        Raises
        ------
        JournalError
            If it is of a format that we do not know, or lacks something.
        """
        try:
            content = json.loads(payload)
            written = content.pop("format")
            started_at = datetime.fromisoformat(content.pop("started_at"))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise JournalError(
                f"A run's description cannot be read: {error}.",
                "Restore the journal from a copy, or start another run.",
            ) from error
        if written != FORMAT:
            raise JournalError(
                f"The run was recorded in format {written!r:.20}, and this program knows format {FORMAT}.",
                "Use the version of genesis-pg that recorded it.",
            )
        try:
            description = cls(started_at=started_at, **content)
            description._check()
        except (TypeError, ValueError) as error:
            raise JournalError(
                f"A run's description does not fit format {FORMAT}: {error}.", "Restore the journal from a copy."
            ) from error
        return description

    def _check(self) -> None:
        """Raise ValueError where a figure is none that a run can have; TypeError where it is no figure."""
        if not (math.isfinite(self.interval_seconds) and 0 < self.interval_seconds <= self.duration_seconds):
            raise ValueError(f"intervals of {self.interval_seconds} s in {self.duration_seconds} s")
        if not math.isfinite(self.duration_seconds):
            raise ValueError(f"a duration of {self.duration_seconds} s")
        if not isinstance(self.seed, int):
            raise TypeError(f"a seed of {self.seed!r}")
        if self.started_at.tzinfo is None:
            raise ValueError("its start names no time zone")
        texts = (self.run, self.server, self.database, self.display, self.version, self.program)
        if not (all(isinstance(text, str) for text in texts) and isinstance(self.load, Mapping)):
            raise TypeError("a text or the load is of another kind")
