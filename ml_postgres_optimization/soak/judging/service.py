"""How well the server served: success, response times, and how fast the error budget was used up."""

from __future__ import annotations

from collections.abc import Iterator

from ml_postgres_optimization.soak.figures.fold import RunFigures
from ml_postgres_optimization.soak.figures.totals import Totals
from ml_postgres_optimization.soak.interval import IntervalState
from ml_postgres_optimization.soak.judging.limits import Limits
from ml_postgres_optimization.soak.judging.outcome import Finding, Outcome
from ml_postgres_optimization.soak.judging.quantity import Dimension, shown


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
    hours = {hour: max(0.0, 1 - succeeded / due) for hour, (due, succeeded) in figures.hours.items() if due}
    if budget <= 0 or not hours:
        reason = "There is no budget: every operation must succeed." if budget <= 0 else "Nothing came due."
        yield Finding("hourly_burn", title, Outcome.UNDECIDED, "–", at_most, reason)
        return
    worst = max(hours, key=lambda hour: hours[hour])
    found = hours[worst] / budget
    outcome = Outcome.PASSED if found <= limits.hourly_burn_factor else Outcome.FAILED
    evidence = (
        f"In hour {worst} of the run {shown(hours[worst], Dimension.RATIO)} did not succeed; the budget is "
        f"{shown(budget, Dimension.RATIO)}, and 1 × would use it up exactly."
    )
    yield Finding(
        "hourly_burn", title, outcome, shown(found, Dimension.FACTOR), at_most, evidence, found,
        limits.hourly_burn_factor,
    )  # fmt: skip
