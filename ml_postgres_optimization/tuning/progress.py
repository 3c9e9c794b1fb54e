"""What the controller tells those who listen."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.telemetry import Window
from ml_postgres_optimization.trials import Interval, Proposal, Trial, uneven, unsettled


class Stage(StrEnum):
    """Where the controller is; the last four come from a continuous run alone."""

    WATCHED = "watched"
    UNREAD = "unread"
    PROPOSED = "proposed"
    REFUSED = "refused"
    COMPARED = "compared"
    DECIDED = "decided"
    PROVING = "proving"
    PROVEN = "proven"
    QUIET = "quiet"
    WAITING = "waiting"
    OVERTAKEN = "overtaken"
    STEADY = "steady"
    FORECAST = "forecast"
    WOKEN = "woken"
    ADVISED = "advised"


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of the controller.

    Parameters
    ----------
    stage : Stage
    at : datetime
    message : str
        A sentence for the user.
    remaining_seconds : float
        Of the budget; infinite where a continuous run has no end.
    proposal : Proposal or None
        What it is about, from ``proposed`` to ``proven``.
    interval : Interval or None
        Candidate over baseline so far.
    trial : Trial or None
        The whole trial, once decided: the one to keep.
    window : Window or None
        What was seen before the first trial, with ``watched``; each window without an event, with ``steady``.
    configuration : Configuration or None
        What somebody else has put in force, with ``overtaken``.
    """

    stage: Stage
    at: datetime
    message: str
    remaining_seconds: float
    proposal: Proposal | None = None
    interval: Interval | None = None
    trial: Trial | None = None
    window: Window | None = None
    configuration: Configuration | None = None


Subscriber = Callable[[Progress], None]
_MOST_NAMED = 8


def named(knobs: Collection[str]) -> str:
    """Name the first few knobs of many."""
    first = list(knobs)[:_MOST_NAMED]
    more = len(knobs) - len(first)
    return ", ".join(first) + (f" and {more} more" if more else "")


def described_so_far(pairs: int, interval: Interval) -> str:
    """Say in a few words what the pairs show."""
    if interval.low == 0 and interval.high == math.inf:
        return f"{pairs} pairs, candidate over baseline {interval.ratio:.3f} (too few for an interval)"
    return f"{pairs} pairs, candidate over baseline {interval.ratio:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def described(trial: Trial) -> str:
    """Say in a sentence how a trial ended, and why."""
    verdict = trial.verdict
    interval = Interval(verdict.ratio, verdict.ratio_low, verdict.ratio_high)
    told = f"{verdict.outcome}, for {verdict.reason}: {described_so_far(len(verdict.pairs), interval)}"
    notes = (note for note in (uneven(trial.figures), unsettled(trial.figures)) if note)
    return "; ".join((told, *notes))


def seen(window: Window) -> str:
    """Say in a few words what ran in a window."""
    if not window.operations_total:
        return f"{len(window.statements)} different queries ran in {window.duration_seconds:.0f} s"
    return (
        f"{window.operations_total:,} operations in {window.duration_seconds:.0f} s, "
        f"{window.response.mean_seconds * 1000:.2f} ms on average"
    )
