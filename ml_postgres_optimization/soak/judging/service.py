"""How well the server served: success, response times, and how fast the error budget was used up."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ml_postgres_optimization.soak.figures.columns import Columns
from ml_postgres_optimization.soak.figures.fold import RunFigures
from ml_postgres_optimization.soak.figures.totals import Totals
from ml_postgres_optimization.soak.interval import IntervalState
from ml_postgres_optimization.soak.judging.limits import Limits
from ml_postgres_optimization.soak.judging.outcome import Finding, Outcome
from ml_postgres_optimization.soak.judging.quantity import Dimension, shown

_HOUR_SECONDS = 3600.0


def success_finding(figures: RunFigures, limit: float) -> Finding:
    """Judge the share of what was due that succeeded."""
    totals = figures.totals
    title, at_least = "Operations that succeed", f"at least {shown(limit, Dimension.RATIO)}"
    if not totals.due_total:
        return Finding(
            "success", title, Outcome.UNDECIDED, "–", at_least, "Nothing came due while a runner was there."
        )
    ratio = totals.success_ratio
    outcome = Outcome.PASSED if ratio >= limit else Outcome.FAILED
    return Finding(
        "success", title, outcome, shown(ratio, Dimension.RATIO), at_least, _success_evidence(totals), ratio, limit
    )


def _success_evidence(totals: Totals) -> str:
    parts = [
        f"{totals.succeeded_total:,} of {totals.due_total:,} that came due; {totals.failed_total:,} failed, "
        f"{totals.skipped_total:,} were never started"
    ]
    if totals.ambiguous_total:
        parts.append(f"of the failed, {totals.ambiguous_total:,} may have been committed all the same")
    if totals.presumed_total:
        parts.append(
            f"{totals.presumed_total:,} are presumed: due while the server was down, at the rate offered before"
        )
    uncounted = totals.seconds_in((IntervalState.CLIENT_DOWN, IntervalState.LOST))
    if uncounted:
        parts.append(f"{uncounted:,.0f} s without a runner, or without its record, count for nobody")
    return "; ".join(parts) + "."


def latency_findings(figures: RunFigures, limits: Limits) -> Iterator[Finding]:
    """Judge mean and percentiles of the whole run, from merged buckets."""
    response = figures.totals.response
    wanted = {
        "mean": (limits.mean_seconds, None),
        "p50": (limits.p50_seconds, 0.5),
        "p95": (limits.p95_seconds, 0.95),
        "p99": (limits.p99_seconds, 0.99),
        "p99_9": (limits.p99_9_seconds, 0.999),
    }
    for name, (limit, quantile) in wanted.items():
        if limit is None:
            continue
        title = "Mean response" if quantile is None else f"{quantile * 100:g} % of the responses"
        at_most = f"at most {shown(limit, Dimension.SECONDS)}"
        if not response.total:
            yield Finding(name, title, Outcome.UNDECIDED, "–", at_most, "Nothing was answered.")
            continue
        found = response.mean_seconds if quantile is None else response.quantile_seconds(quantile)
        outcome = Outcome.PASSED if found <= limit else Outcome.FAILED
        evidence = f"{response.total:,} responses, from the intended start{_doubtful(figures)}."
        yield Finding(name, title, outcome, shown(found, Dimension.SECONDS), at_most, evidence, found, limit)


def _doubtful(figures: RunFigures) -> str:
    seconds = figures.totals.seconds_in((IntervalState.DEGRADED,))
    return f"; {seconds:,.0f} s of them are doubtful" if seconds else ""


def burn_finding(figures: RunFigures, limits: Limits) -> Iterator[Finding]:
    """Judge how fast the error budget was used up in the worst hour.

    References
    ----------
    Google, The Site Reliability Workbook (2018), chapter 5: burn rate.
    """
    if limits.hourly_burn_factor is None:
        return
    title = "Use of the error budget, worst hour"
    at_most = f"at most {shown(limits.hourly_burn_factor, Dimension.FACTOR)}"
    budget = 1 - limits.success_ratio
    hours = failed_ratios_by_hour(figures)
    if budget <= 0 or not np.isfinite(hours).any():
        reason = "There is no budget: every operation must succeed." if budget <= 0 else "Nothing came due."
        yield Finding("hourly_burn", title, Outcome.UNDECIDED, "–", at_most, reason)
        return
    worst = int(np.nanargmax(hours))
    found = float(hours[worst]) / budget
    outcome = Outcome.PASSED if found <= limits.hourly_burn_factor else Outcome.FAILED
    evidence = (
        f"In hour {worst} {shown(float(hours[worst]), Dimension.RATIO)} did not succeed; the budget is "
        f"{shown(budget, Dimension.RATIO)}, and 1 × would use it up exactly."
    )
    yield Finding(
        "hourly_burn", title, outcome, shown(found, Dimension.FACTOR), at_most, evidence, found,
        limits.hourly_burn_factor,
    )  # fmt: skip


def failed_ratios_by_hour(figures: RunFigures) -> NDArray[np.float64]:
    """Return the share of what came due in each hour that did not succeed, shape (hours,); NaN where nothing did.

    Time in which the server was down counts as failed at the rate that was offered before.
    """
    minutes = figures.minutes
    offered, succeeded = _served(minutes, figures)
    slots = max(1, round(_HOUR_SECONDS / minutes.slot_seconds))
    hours = math.ceil(len(offered) / slots)
    padding = (0, hours * slots - len(offered))
    due = np.nansum(np.pad(offered, padding, constant_values=np.nan).reshape(hours, slots), axis=1)
    done = np.nansum(np.pad(succeeded, padding, constant_values=np.nan).reshape(hours, slots), axis=1)
    ratios = np.full(hours, np.nan)
    ratios[due > 0] = np.maximum(due - done, 0.0)[due > 0] / due[due > 0]
    return ratios


def _served(minutes: Columns, figures: RunFigures) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    offered, succeeded = minutes.column("load.offered"), minutes.column("load.succeeded")
    for gap in figures.gaps:
        if gap.state is not IntervalState.SERVER_DOWN:
            continue
        first = int(gap.from_seconds // minutes.slot_seconds)
        after = math.ceil(gap.until_seconds / minutes.slot_seconds)
        before = offered[:first][np.isfinite(offered[:first])]
        missing = np.arange(first, min(after, len(offered)))
        missing = missing[~np.isfinite(offered[missing])]
        offered[missing] = before[-1] if before.size else np.nan
        succeeded[missing] = 0.0
    return offered, succeeded
