"""What the repository keeps of the rooms above it, as plain records that they convert to and from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from ml_postgres_optimization.knobs.configuration import Configuration


class SlowerPart(NamedTuple):
    """A kind of operation, or a query, that a candidate made slower.

    Parameters
    ----------
    part : str
        ``update`` for one, or ``query`` and its queryid.
    share : float
        Of the load's time on the baseline.
    ratio, ratio_low, ratio_high : float
        Candidate over baseline, with the interval; above 1 is slower.
    """

    part: str
    share: float
    ratio: float
    ratio_low: float
    ratio_high: float


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """A trial and its verdict.

    Parameters
    ----------
    id : str
        Sorts by time; unique for the server.
    started_at, ended_at : datetime
        Aware.
    baseline, candidate : Configuration
    origin, reason : str
        Who proposed the candidate, and why.
    outcome : str
        ``promoted``, ``rejected``, ``equivalent``, ``undecided`` or ``aborted``.
    ratio, ratio_low, ratio_high : float
        Candidate over baseline, with the interval; below 1 is faster.
    verdict_reason : str
    pairs : tuple of (float, float, bool)
        Baseline seconds, candidate seconds, whether the candidate ran first.
    figures : mapping of str to float
        ``baseline_mean_seconds``, ``candidate_p99_seconds``, …
    predicted_ratio, predicted_low, predicted_high : float or None
        What the model expected of `ratio`; None where no model was asked.
    design : str
        ``switchback`` or ``concurrent``.
    slower_parts : tuple of SlowerPart
    """

    id: str
    started_at: datetime
    ended_at: datetime
    baseline: Configuration
    candidate: Configuration
    origin: str
    reason: str
    outcome: str
    ratio: float
    ratio_low: float
    ratio_high: float
    verdict_reason: str = ""
    pairs: tuple[tuple[float, float, bool], ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)
    predicted_ratio: float | None = None
    predicted_low: float | None = None
    predicted_high: float | None = None
    design: str = "switchback"
    slower_parts: tuple[SlowerPart, ...] = ()


@dataclass(frozen=True, slots=True)
class PredictionRecord:
    """What a model said of a window before it happened.

    Parameters
    ----------
    kind : str
        ``latency_seconds``: the window's mean response. ``error_probability``: that any operation fails.
        ``error_probability:<class>``: that one fails with an error of this class (`retry.ErrorClass`).
    model_id : str
    made_at, window_started_at : datetime
        When it was said, and when the window that it speaks of begins.
    value, low, high : float
        Seconds, or a probability from 0 to 1.
    level : float
        How often the interval should hold the truth.
    run : str or None
        The run whose window it is; None where windows of one run only are recorded.
    naive_value : float or None
        What the window before would let expect.
    configuration_id : str or None
        What it supposes to be in force: a window under anything else does not score it. None for any.
    """

    kind: str
    model_id: str
    made_at: datetime
    window_started_at: datetime
    value: float
    low: float
    high: float
    level: float = 0.9
    run: str | None = None
    naive_value: float | None = None
    configuration_id: str | None = None


@dataclass(frozen=True, slots=True)
class PredictionScore:
    """How the predictions of a model came true.

    Parameters
    ----------
    kind, model_id : str
    predictions, scored : int
        All, and those whose window is known.
    mean_absolute_error, naive_mean_absolute_error : float or None
        None where nothing is scored; in the unit of the prediction.
    mean_squared_error, naive_mean_squared_error : float or None
        Of a probability, this is the Brier score.
    coverage : float or None
        How often the interval held the truth.
    level : float
        How often it should have.
    """

    kind: str
    model_id: str
    predictions: int
    scored: int
    mean_absolute_error: float | None
    naive_mean_absolute_error: float | None
    mean_squared_error: float | None
    naive_mean_squared_error: float | None
    coverage: float | None
    level: float


@dataclass(frozen=True, slots=True)
class PreventionRecord:
    """A danger that was foretold, what was done about it, and what happened then.

    Parameters
    ----------
    id : str
        Sorts by time; unique for the server.
    run : str or None
    began_at : datetime
        Aware.
    ended_at : datetime or None
        None while it lasts, or where the run died.
    error_class : str
    probability, low, high, level : float
        That an error of the class comes in the next window, as it was foretold.
    threshold : float
    source : str
        The model, or ``symptom``.
    choice : str
        ``acted``, ``held out`` or ``advised``.
    lever, deed, ending : str
    before, after : Configuration or None
    windows, operations, errors : int
        Seen in the horizon.
    response_seconds : float
        Sum over these operations.
    is_whole : bool
        Whether the horizon was seen to its end.
    due, undone : int
        Operations that were to be done in the horizon, and those of them that were not.
    """

    id: str
    run: str | None
    began_at: datetime
    ended_at: datetime | None
    error_class: str
    probability: float
    low: float
    high: float
    level: float
    threshold: float
    source: str
    choice: str
    lever: str
    deed: str
    ending: str
    before: Configuration
    after: Configuration | None
    windows: int = 0
    operations: int = 0
    errors: int = 0
    response_seconds: float = 0.0
    is_whole: bool = False
    due: int = 0
    undone: int = 0


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """A record of the journal on disk, as mirrored in the database.

    Parameters
    ----------
    at : datetime
    entry : mapping
        Whatever the journal holds, as JSON.
    """

    at: datetime
    entry: Mapping[str, object]
