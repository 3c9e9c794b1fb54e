"""What a run must hold: defaults, and the file in which a user says otherwise."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.soak.judging.metrics import DEFAULT_DRIFT_METRICS, METRICS
from ml_postgres_optimization.soak.judging.quantity import Dimension, quantity

_NEXT_STEP = "docs/soak_report.md lists the criteria."


@dataclass(frozen=True, slots=True)
class DriftLimits:
    """What counts as drift.

    Parameters
    ----------
    metrics : tuple of str
        Names of `METRICS` that must not drift for the worse; none switches the criterion off.
    minimum_ratio : float
        The practical minimum: what changes by less over the whole run is no drift, however significant.
    confidence_ratio : float
        1 minus the probability that a run without any drift is said to have one, over all metrics together.
    detectable_ratio : float
        Where only larger drifts could have been found, that none was is no finding.
    """

    metrics: tuple[str, ...] = DEFAULT_DRIFT_METRICS
    minimum_ratio: float = 0.05
    confidence_ratio: float = 0.95
    detectable_ratio: float = 0.25


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a run; None for what is not judged.

    Parameters
    ----------
    success_ratio : float
        Least share of what was due that succeeds.
    mean_seconds, p50_seconds, p95_seconds, p99_seconds, p99_9_seconds : float or None
        Longest response time, from the intended start.
    hourly_burn_factor : float or None
        How many times as fast as planned the error budget (1 − `success_ratio`) may be used up in any hour.
    client_memory_bytes_per_hour, server_memory_bytes_per_hour : float or None
        Fastest growth that is proven.
    bloat_growth_ratio : float or None
        Largest growth, over the run, of the size per live row.
    drift : DriftLimits
    undecided_fails : bool
        Whether what cannot be decided fails the run.

    References
    ----------
    99.5 % and 5 ms are the criteria of the specification's extended test. 14.4: Google, The Site Reliability
    Workbook, chapter 5 (2 % of a budget of 30 days in one hour). 1 MB/h is what the product asks of itself in three
    days.
    """

    success_ratio: float = 0.995
    mean_seconds: float | None = 0.005
    p50_seconds: float | None = None
    p95_seconds: float | None = None
    p99_seconds: float | None = None
    p99_9_seconds: float | None = None
    hourly_burn_factor: float | None = 14.4
    client_memory_bytes_per_hour: float | None = 1e6
    server_memory_bytes_per_hour: float | None = 50e6
    bloat_growth_ratio: float | None = 0.5
    drift: DriftLimits = field(default_factory=DriftLimits)
    undecided_fails: bool = False


# Key of the file → field, and what it measures.
_KEYS: Mapping[str, tuple[str, Dimension]] = {
    "success": ("success_ratio", Dimension.RATIO),
    "mean": ("mean_seconds", Dimension.SECONDS),
    "p50": ("p50_seconds", Dimension.SECONDS),
    "p95": ("p95_seconds", Dimension.SECONDS),
    "p99": ("p99_seconds", Dimension.SECONDS),
    "p99_9": ("p99_9_seconds", Dimension.SECONDS),
    "hourly_burn": ("hourly_burn_factor", Dimension.FACTOR),
    "client_memory_growth": ("client_memory_bytes_per_hour", Dimension.BYTES_PER_HOUR),
    "server_memory_growth": ("server_memory_bytes_per_hour", Dimension.BYTES_PER_HOUR),
    "bloat_growth": ("bloat_growth_ratio", Dimension.GROWTH),
}
_DRIFT_KEYS = ("metrics", "minimum", "confidence", "detectable")


def read_limits(path: Path) -> Limits:
    """Read a criteria file.

    Raises
    ------
    UsageError
        If it cannot be read, is no TOML, or says something that is not understood; the message names the key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8"
        raise UsageError(f"The criteria file {path} cannot be read: {reason}.", "Name another one.") from error
    return parse_limits(text, str(path))


def parse_limits(text: str, source: str = "the criteria") -> Limits:
    """Read criteria from TOML; what is not named keeps its default, ``"off"`` switches a criterion off.

    Raises
    ------
    UsageError
        As `read_limits`.

    Examples
    --------
    >>> parse_limits('p99 = "50 ms"').p99_seconds
    0.05
    """
    try:
        stated = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{source} is no TOML: {error}.", "Correct that line.") from error
    _refuse_unknown(source, stated, (*_KEYS, "drift", "undecided"))
    changes: dict[str, object] = {}
    for key, (name, dimension) in _KEYS.items():
        if key in stated:
            changes[name] = _limit(key, stated[key], dimension)
    if "drift" in stated:
        changes["drift"] = _drift(source, stated["drift"])
    if "undecided" in stated:
        changes["undecided_fails"] = _undecided(stated["undecided"])
    return replace(Limits(), **changes)  # type: ignore[arg-type]  # each field's type is that of its dimension


def _limit(key: str, written: object, dimension: Dimension) -> float | None:
    if written == "off":
        if key == "success":
            raise UsageError("Criterion success cannot be off: a run is judged by it.", 'Write success = "0 %".')
        return None
    return quantity(key, written, dimension)


def _drift(source: str, stated: object) -> DriftLimits:
    if stated == "off":
        return DriftLimits(metrics=())
    if not isinstance(stated, Mapping):
        raise UsageError(f"Criterion drift is {stated!r}; it is a table.", 'Write [drift] and its keys, or "off".')
    _refuse_unknown(f"{source}, [drift]", stated, _DRIFT_KEYS)
    limits = DriftLimits()
    if "metrics" in stated:
        limits = replace(limits, metrics=_metrics(source, stated["metrics"]))
    if "minimum" in stated:
        limits = replace(limits, minimum_ratio=quantity("drift.minimum", stated["minimum"], Dimension.RATIO))
    if "detectable" in stated:
        detectable = quantity("drift.detectable", stated["detectable"], Dimension.GROWTH)
        limits = replace(limits, detectable_ratio=detectable)
    if "confidence" in stated:
        limits = replace(limits, confidence_ratio=_confidence(stated["confidence"]))
    return limits


def _confidence(written: object) -> float:
    confidence = quantity("drift.confidence", written, Dimension.RATIO)
    if not 0.5 <= confidence < 1:
        raise UsageError(
            f"Criterion drift.confidence is {written!r}; it must be 50 % or more, and below 100 %.",
            'Write confidence = "95 %".',
        )
    return confidence


def _metrics(source: str, stated: object) -> tuple[str, ...]:
    if not isinstance(stated, list) or not all(isinstance(name, str) for name in stated):
        raise UsageError(f"Criterion drift.metrics is {stated!r}; it is a list.", f"Choose of {', '.join(METRICS)}.")
    _refuse_unknown(f"{source}, drift.metrics", stated, METRICS)
    return tuple(dict.fromkeys(stated))


def _undecided(stated: object) -> bool:
    if stated not in ("pass", "fail"):
        raise UsageError(f"undecided is {stated!r}; it must be pass or fail.", 'Write undecided = "fail".')
    return stated == "fail"


def _refuse_unknown(source: str, stated: Iterable[str], known: Iterable[str]) -> None:
    names = list(known)
    for key in stated:
        if key not in names:
            close = difflib.get_close_matches(key, names, 1)
            raise UsageError(
                f"{source}: {key!r} is not known.",
                f"Did you mean {close[0]}? {_NEXT_STEP}" if close else f"Choose of {', '.join(names)}. {_NEXT_STEP}",
            )
