"""What one block came to."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml_postgres_optimization.telemetry import Histogram, SampleBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockFigures:
    """One block, or several of one arm at one level.

    Parameters
    ----------
    response, service : Histogram
        Of every operation that was begun, those that failed too: from when it was due, and from when it was first
        sent, to its end, repetitions included.
    errors : mapping of str to int
        Operations that failed in the end, by SQLSTATE.
    retried : mapping of str to int
        Attempts that failed and were followed by another one, by SQLSTATE.
    skipped_total : int
        Operations that came due and were never begun: they were not served either.
    ambiguous_total : int
        Of those that failed, those that may have been committed all the same.
    faults : mapping of str to int
        Faults that were in force, by kind.
    faults_planned, faults_passed_over : int
        Faults that the schedule had, and those of them that did not come since too many were under way.
    seconds : float
        That were counted.
    cpu_ratio : float
        Share of a core that the busiest client process used.
    concurrency_limits : tuple of int
        How many operations at once the limiter let in at the end of each block; empty without one.
    held_total : int
        How often prevention held the load below a ceiling.
    held_seconds : float
        For how long, of those that were counted and of the warm-up.
    """

    response: Histogram = field(default_factory=Histogram.empty)
    service: Histogram = field(default_factory=Histogram.empty)
    errors: Mapping[str, int] = field(default_factory=dict)
    retried: Mapping[str, int] = field(default_factory=dict)
    skipped_total: int = 0
    ambiguous_total: int = 0
    faults: Mapping[str, int] = field(default_factory=dict)
    faults_planned: int = 0
    faults_passed_over: int = 0
    seconds: float = 0.0
    cpu_ratio: float = 0.0
    concurrency_limits: tuple[int, ...] = ()
    held_total: int = 0
    held_seconds: float = 0.0

    @property
    def operations_total(self) -> int:
        """Operations that came due."""
        return self.response.total + self.skipped_total

    @property
    def failed_total(self) -> int:
        """Operations that were not served: failed in the end, or never begun."""
        return sum(self.errors.values()) + self.skipped_total

    @property
    def error_ratio(self) -> float:
        """The share that was not served; NaN where nothing came due."""
        return self.failed_total / self.operations_total if self.operations_total else math.nan

    @property
    def errors_before_retries(self) -> Mapping[str, int]:
        """Attempts that failed, whether others followed or not, by SQLSTATE."""
        return dict(Counter(self.errors) + Counter(self.retried))

    def __add__(self, other: BlockFigures) -> BlockFigures:
        return BlockFigures(
            response=self.response + other.response,
            service=self.service + other.service,
            errors=dict(Counter(self.errors) + Counter(other.errors)),
            retried=dict(Counter(self.retried) + Counter(other.retried)),
            skipped_total=self.skipped_total + other.skipped_total,
            ambiguous_total=self.ambiguous_total + other.ambiguous_total,
            faults=dict(Counter(self.faults) + Counter(other.faults)),
            faults_planned=self.faults_planned + other.faults_planned,
            faults_passed_over=self.faults_passed_over + other.faults_passed_over,
            seconds=self.seconds + other.seconds,
            cpu_ratio=max(self.cpu_ratio, other.cpu_ratio),
            concurrency_limits=(*self.concurrency_limits, *other.concurrency_limits),
            held_total=self.held_total + other.held_total,
            held_seconds=self.held_seconds + other.held_seconds,
        )

    def to_json(self) -> dict[str, object]:
        """Return a JSON-ready form, from which `from_json` makes the same again."""
        return {
            "response": self.response.to_json(),
            "service": self.service.to_json(),
            "errors": dict(self.errors),
            "retried": dict(self.retried),
            "skipped_total": self.skipped_total,
            "ambiguous_total": self.ambiguous_total,
            "faults": dict(self.faults),
            "faults_planned": self.faults_planned,
            "faults_passed_over": self.faults_passed_over,
            "seconds": self.seconds,
            "cpu_ratio": self.cpu_ratio,
            "concurrency_limits": list(self.concurrency_limits),
            "held_total": self.held_total,
            "held_seconds": self.held_seconds,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> BlockFigures:
        """Rebuild what `to_json` gave.

        Raises
        ------
        AttributeError, KeyError, TypeError, ValueError
            If it is something else.
        """
        rebuilt: dict[str, Any] = {**stored, "concurrency_limits": tuple(stored["concurrency_limits"])}
        for name in ("response", "service"):
            rebuilt[name] = Histogram.from_json(stored[name])
        figures = cls(**rebuilt)
        by_name = (figures.errors, figures.retried, figures.faults)
        counts = [count for counted in by_name for count in counted.values()]
        counts += [figures.skipped_total, figures.ambiguous_total, figures.faults_planned, figures.faults_passed_over]
        counts.append(figures.held_total)
        if not all(type(count) is int and count >= 0 for count in counts):
            raise ValueError("a count of a block is no whole number from 0")
        seconds = (
            figures.seconds,
            figures.held_seconds,
            figures.cpu_ratio,
            figures.response.sum_seconds,
            figures.service.sum_seconds,
        )
        if not all(math.isfinite(one) and one >= 0 for one in seconds):
            raise ValueError("a time of a block is no number from 0")
        return figures


def figures_of(
    batches: Sequence[SampleBatch],
    since_seconds: float,
    until_seconds: float,
    *,
    faults: Mapping[str, int],
    cpu_ratio: float,
    concurrency_limit: int | None = None,
) -> BlockFigures:
    """Count what came due from one monotonic time to another, whenever it ended.

    What was skipped, or tried again, is not timed one by one: it is counted where it was reported after the first of
    the two, so that a little of what comes due after the second may be in it.
    """
    rows = [_Due.of(batch, since_seconds, until_seconds) for batch in batches]
    later = [batch.split(since_seconds)[1] for batch in batches]
    return BlockFigures(
        response=sum((Histogram.of(one.response_seconds) for one in rows), Histogram.empty()),
        service=sum((Histogram.of(one.service_seconds) for one in rows), Histogram.empty()),
        errors=dict(Counter(code for one in rows for code in one.failures)),
        retried=dict(sum((Counter(batch.retried) for batch in later), Counter())),
        skipped_total=sum(batch.skipped_total for batch in later),
        ambiguous_total=sum(one.ambiguous_total for one in rows),
        faults=faults,
        seconds=until_seconds - since_seconds,
        cpu_ratio=cpu_ratio,
        concurrency_limits=() if concurrency_limit is None else (concurrency_limit,),
    )


@dataclass(frozen=True, slots=True)
class _Due:
    """Of one batch, what came due in a stretch of time."""

    response_seconds: NDArray[np.float64]
    service_seconds: NDArray[np.float64]
    failures: Sequence[str]
    ambiguous_total: int

    @classmethod
    def of(cls, batch: SampleBatch, since_seconds: float, until_seconds: float) -> _Due:
        due, ended = batch.intended_start_seconds, batch.end_seconds
        chosen = (due >= since_seconds) & (due < until_seconds)
        return cls(
            (ended - due)[chosen],
            (ended - batch.start_seconds)[chosen],
            [code.decode() for code in batch.sqlstate[chosen].tolist() if code],
            int(np.count_nonzero(batch.ambiguous[chosen])) if batch.ambiguous.size else 0,
        )
