"""What a course looks at beside its recorder: the load, and whatever else is told of an interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ml_postgres_optimization.soak.interval import Event, IntervalState
from ml_postgres_optimization.soak.journal import Totals
from ml_postgres_optimization.workload import LoadCounters


class Load(Protocol):
    """Load of our own, as far as a soak needs it."""

    @property
    def counters(self) -> LoadCounters:
        """What it has done so far."""

    def cpu_ratio_since(self, monotonic_seconds: float) -> float:
        """Return the largest share of a core that one of its client processes used since then."""

    def pause(self) -> None:
        """Offer nothing for a while."""

    def resume(self) -> None:
        """Go on."""

    def stop(self) -> None:
        """End it, and hand over what it has left."""


@dataclass(frozen=True, slots=True)
class Watch:
    """What else is looked at in every interval.

    Parameters
    ----------
    configuration_id : callable
        Returns the configuration in force; asked at the beginning of each interval.
    resources : callable
        Returns what the runner and its processes use, by name.
    events : callable
        Returns what others have to tell since it was last asked: faults, changes of the configuration.
    prepare : callable
        Called with each interval's number before it begins; what it raises ends the run: the fence, for one.
    review : callable
        Called with the state of an interval that was written, and its totals; what it raises ends the run.
    settle : callable or None
        Called with the totals once the load has ended; returns why they cannot be settled now, None where they are.
        It is asked again for some minutes.
    reads : set of str
        Kinds of operations that change nothing.
    """

    configuration_id: Callable[[], str]
    resources: Callable[[], Mapping[str, float]] = dict
    events: Callable[[], tuple[Event, ...]] = tuple
    prepare: Callable[[int], None] = lambda _number: None
    review: Callable[[IntervalState, Totals], None] = lambda _state, _totals: None
    settle: Callable[[Totals], str | None] | None = None
    reads: frozenset[str] = field(default_factory=frozenset)


def nobody_watches(configuration_id: str) -> Watch:
    """Return a watch that looks at nothing else."""
    return Watch(lambda: configuration_id)
