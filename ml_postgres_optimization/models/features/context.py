"""What the load is like, whatever the server does with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ml_postgres_optimization.models.features.encoding import encode_text
from ml_postgres_optimization.models.features.registry import LOAD_CONTEXT, OPERATION_KINDS
from ml_postgres_optimization.models.features.summary import NAN, WindowSummary, summarise
from ml_postgres_optimization.telemetry import Window


@dataclass(frozen=True, slots=True)
class LoadContext:
    """What the load is like, whatever the server does with it.

    Parameters
    ----------
    offered_per_second : float
        Operations that are due, per second; NaN where unknown, as in a closed loop (label ``loop=closed``), whose
        rate follows from the latency and would give it away.
    mix : mapping of str to float
        Share of each kind of operation, adding up to 1; empty where operations are not ours.
    level : str or None
        Name of the load level.
    """

    offered_per_second: float = NAN
    mix: Mapping[str, float] = field(default_factory=dict)
    level: str | None = None

    @classmethod
    def of(cls, window: Window) -> LoadContext:
        """Return the context of `window`."""
        return cls.of_summary(summarise(window), window)

    @classmethod
    def of_summary(cls, summary: WindowSummary, window: Window) -> LoadContext:
        """Return the context of a window that was summarised before."""
        total = sum(summary.finished.values())
        mix = {kind: count / total for kind, count in summary.finished.items()} if total else {}
        return cls(summary.offered_per_second, mix, window.labels.get("level"))

    def features(self) -> dict[str, float]:
        """Return the features of `LOAD_CONTEXT`."""
        absent = 0.0 if self.mix else NAN
        values = (
            self.offered_per_second,
            NAN if self.level is None else encode_text(self.level),
            *(self.mix.get(kind, absent) for kind in OPERATION_KINDS),
        )
        return dict(zip(LOAD_CONTEXT, values, strict=True))
