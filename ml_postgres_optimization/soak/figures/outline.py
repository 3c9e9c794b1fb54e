"""What is known of a run beside its intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class RunOutline:
    """A run's name, plan and circumstances, for its judge and for its readers.

    Parameters
    ----------
    run : str
    started_at : datetime
        Aware; interval n lies n times `interval_seconds` later.
    interval_seconds, planned_seconds : float
        Positive.
    server, load : str
        What was under load, and under which: a phrase each, without a password.
    cycle_seconds : float or None
        After which the load, or the server's own work, repeats: a day unless something else is known. None where
        nothing repeats.
    facts : mapping of str to str
        Whatever else a reader should know: level, seed, configuration, versions.
    violation : str or None
        What the check of the operation ledger found broken, in a sentence: such a run fails whatever else it held.
    is_settled : bool or None
        Whether that check could be made at the end; None where the run has not ended, or has no ledger.
    """

    run: str
    started_at: datetime
    interval_seconds: float
    planned_seconds: float
    server: str = "a PostgreSQL"
    load: str = "load of our own"
    cycle_seconds: float | None = DAY_SECONDS
    facts: Mapping[str, str] = field(default_factory=dict)
    violation: str | None = None
    is_settled: bool | None = None

    def seconds_until(self, number: int) -> float:
        """Return how long after the start interval `number` begins; the last one may be shorter than the others."""
        return min(number * self.interval_seconds, self.planned_seconds)
