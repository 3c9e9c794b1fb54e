"""What a benchmark found, as tables, as sentences, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ml_postgres_optimization.comparison.arm import BASE, OPTIMISED, Part
from ml_postgres_optimization.comparison.terms import Terms
from ml_postgres_optimization.comparison.verdict import ArmSeen, Finding, LevelSeen, Target
from ml_postgres_optimization.interfaces.reporter import Table, milliseconds
from ml_postgres_optimization.interfaces.trial_view import interval_text, percent_change
from ml_postgres_optimization.telemetry import Histogram

QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}
# "Running large tests", k6's documentation: beyond it the client itself may be what is slow.
_FIT_CPU_RATIO = 0.8
# of the most that struck an arm: within it the others count as struck alike
_SAME_FAULTS_RATIO = 0.02


def tables_of(levels: Sequence[LevelSeen], terms: Terms) -> list[Table]:
    """Return the specification's two tables, and what stands behind them."""
    return [
        _latency_table(levels, terms),
        _error_table(levels),
        *([_ablation_table(levels)] if len(levels[0].arms) > 2 else []),
        _distribution_table(levels),
        _sqlstate_table(levels),
        _configuration_table(terms),
    ]


def story_of(levels: Sequence[LevelSeen], terms: Terms) -> list[str]:
    """Return the finding, its first sentence by itself, and what one has to know to believe it."""
    findings = [finding for level in levels for finding in (level.latency, level.errors) if finding is not None]
    met = findings.count(Finding.MET)
    unproven = findings.count(Finding.UNDECIDED)
    more = f"; {unproven} more by the estimate alone" if unproven else ""
    return [
        f"{met} of {len(findings)} targets are met{more}.",
        f"Optimised: {terms.origin}; {terms.configured_connections} connections against {terms.connections}.",
        *_on_faults(terms),
        *_on_prevention(levels),
        *_doubts(levels),
    ]


def _on_faults(terms: Terms) -> Iterator[str]:
    if not terms.faults:
        yield "No faults were injected."
    for level, rates in terms.faults.items():
        yield (
            f"Faults at {level}: {rates.stalls:.0f} locks and {rates.terminations:.0f} ended sessions a minute, by "
            f"which base failed {terms.calibrated_error_ratios[level]:.2%} when they were calibrated."
        )


def _on_prevention(levels: Sequence[LevelSeen]) -> Iterator[str]:
    for level in levels:
        for seen in level.arms.values():
            if Part.PREVENTION in seen.arm.parts:
                whole = seen.whole
                yield (
                    f"Prevention at {level.name}, {seen.arm.name}: the load was held {whole.held_total:,} times, for "
                    f"{whole.held_seconds:,.0f} s in all."
                )


def _doubts(levels: Sequence[LevelSeen]) -> Iterator[str]:
    for level in levels:
        busy = [seen.arm.name for seen in level.arms.values() if seen.whole.cpu_ratio > _FIT_CPU_RATIO]
        if busy:
            yield (
                f"Warning: at {level.name} a client process used more than {_FIT_CPU_RATIO:.0%} of a core "
                f"({', '.join(busy)}): the client itself may be what is slow."
            )
        yield from _doubts_of_faults(level)
        yield from _doubts_of_skipped(level)


def _doubts_of_faults(level: LevelSeen) -> Iterator[str]:
    struck = {seen.arm.name: sum(seen.whole.faults.values()) for seen in level.arms.values()}
    if max(struck.values()) - min(struck.values()) > _SAME_FAULTS_RATIO * max(struck.values()):
        told = ", ".join(
            f"{name} {count:,} of {level.arms[name].whole.faults_planned:,}" for name, count in struck.items()
        )
        yield (
            f"Warning: at {level.name} not all arms met the same faults ({told}): their errors and responses differ "
            "by that, too."
        )


def _doubts_of_skipped(level: LevelSeen) -> Iterator[str]:
    skipped = [
        f"{seen.arm.name} {seen.whole.skipped_total:,}" for seen in level.arms.values() if seen.whole.skipped_total
    ]
    if skipped:
        yield (
            f"Warning: at {level.name} operations came due and were never begun ({', '.join(skipped)}). They have no "
            "response, so that the mean of these arms is too low; where the optimised arm has any, its target is not "
            "met."
        )


def _latency_table(levels: Sequence[LevelSeen], terms: Terms) -> Table:
    rows = [
        (
            level.name,
            f"{_rate(level, terms):,.0f}/s",
            f"{level.optimised.whole.operations_total:,}",
            milliseconds(level.reference.mean_seconds.ratio),
            milliseconds(level.optimised.mean_seconds.ratio),
            interval_text(level.optimised.improvement),
            _latency_target(level.target),
            level.latency.value,
        )
        for level in levels
    ]
    columns = ("level", "offered", "operations", "base", "optimised", "change (geometric)", "target", "")
    return Table("Mean response", columns, rows, unbroken=1)


def _rate(level: LevelSeen, terms: Terms) -> float:
    seen = level.reference.whole
    return seen.operations_total / seen.seconds if seen.seconds else terms.capacity_per_second


def _latency_target(target: Target) -> str:
    absolute = f"< {target.mean_seconds * 1000:g} ms"
    if target.mean_ratio is None:
        return absolute
    return f"{percent_change(target.mean_ratio)} {'and' if target.needs_both else 'or'} {absolute}"


def _error_table(levels: Sequence[LevelSeen]) -> Table:
    rows = [
        (
            level.name,
            _share(level.reference.whole.failed_total, level.reference.whole.operations_total),
            _share(sum(level.optimised.whole.errors_before_retries.values()), level.optimised.whole.operations_total),
            _share(level.optimised.whole.failed_total, level.optimised.whole.operations_total),
            _per_ten_thousand(level.optimised.error_ratio.high),
            "–" if level.target.error_ratio is None else f"< {_per_ten_thousand(level.target.error_ratio)}",
            "" if level.errors is None else level.errors.value,
        )
        for level in levels
    ]
    columns = ("level", "base", "before retries", "optimised", "at most (95 %)", "target", "")
    return Table("Errors, of 10,000 operations", columns, rows, unbroken=1)


def _share(failed: int, operations: int) -> str:
    return f"{_per_ten_thousand(failed / operations)} ({failed:,} of {operations:,})" if operations else "–"


def _per_ten_thousand(ratio: float) -> str:
    return f"{ratio * 10_000:.3g}"


def _ablation_table(levels: Sequence[LevelSeen]) -> Table:
    rows = [
        (
            level.name,
            seen.arm.name,
            milliseconds(seen.mean_seconds.ratio),
            "" if seen.arm == BASE else interval_text(seen.improvement),
            _per_ten_thousand(seen.error_ratio.ratio),
        )
        for level in levels
        for seen in level.arms.values()
    ]
    columns = ("level", "arm", "mean response", "against base (geometric)", "errors of 10,000")
    return Table("What each part brings", columns, rows, unbroken=2)


def _distribution_table(levels: Sequence[LevelSeen]) -> Table:
    rows = [
        (level.name, seen.arm.name, name, *_figures(histogram))
        for level in levels
        for seen in (level.reference, level.optimised)
        for name, histogram in (("response", seen.whole.response), ("service", seen.whole.service))
    ]
    return Table("Response and service, ms", ("level", "arm", "", "mean", *QUANTILES), rows, unbroken=2)


def _figures(histogram: Histogram) -> Iterator[str]:
    quantiles = (histogram.quantile_seconds(quantile) for quantile in QUANTILES.values())
    return (f"{seconds * 1000:,.2f}" for seconds in (histogram.mean_seconds, *quantiles))


def _sqlstate_table(levels: Sequence[LevelSeen]) -> Table:
    rows = []
    for level in levels:
        for seen in level.arms.values():
            before, after = seen.whole.errors_before_retries, seen.whole.errors
            rows += [
                (level.name, seen.arm.name, code, f"{count:,}", f"{after.get(code, 0):,}")
                for code, count in sorted(before.items())
            ]
            if seen.whole.skipped_total:
                skipped = f"{seen.whole.skipped_total:,}"
                rows.append((level.name, seen.arm.name, "never begun", skipped, skipped))
    columns = ("level", "arm", "SQLSTATE", "before retries", "after")
    return Table("Errors by SQLSTATE", columns, rows or [("none", "", "", "0", "0")], unbroken=2)


def _configuration_table(terms: Terms) -> Table:
    rows = [(name, value, terms.optimised[name]) for name, value in terms.base.items()]
    return Table("Configurations", ("knob", BASE.name, OPTIMISED.name), rows or [("no difference", "", "")])


def document_of(levels: Sequence[LevelSeen], terms: Terms) -> dict[str, object]:
    """Return all of it as JSON, times in seconds."""
    return {
        "is_met": all(level.is_met for level in levels),
        "terms": terms.to_json(),
        "levels": [_level_json(level, terms) for level in levels],
    }


def _level_json(level: LevelSeen, terms: Terms) -> dict[str, object]:
    target = level.target
    return {
        "level": level.name,
        "offered_per_second": _rate(level, terms),
        "target": {
            "mean_seconds": target.mean_seconds,
            "mean_ratio": target.mean_ratio,
            "needs_both": target.needs_both,
            "error_ratio": target.error_ratio,
        },
        "latency": level.latency.value,
        "errors": None if level.errors is None else level.errors.value,
        "arms": {name: _arm_json(seen) for name, seen in level.arms.items()},
    }


def _arm_json(seen: ArmSeen) -> dict[str, object]:
    whole = seen.whole
    return {
        "parts": sorted(seen.arm.parts),
        "operations_total": whole.operations_total,
        "failed_total": whole.failed_total,
        "skipped_total": whole.skipped_total,
        "ambiguous_total": whole.ambiguous_total,
        "errors_before_retries": dict(whole.errors_before_retries),
        "errors": dict(whole.errors),
        "faults": dict(whole.faults),
        "faults_planned": whole.faults_planned,
        "faults_passed_over": whole.faults_passed_over,
        "cpu_ratio": whole.cpu_ratio,
        "concurrency_limits": list(whole.concurrency_limits),
        "held_total": whole.held_total,
        "held_seconds": whole.held_seconds,
        "response": _seconds(whole.response),
        "service": _seconds(whole.service),
        "mean_seconds": seen.mean_seconds._asdict(),
        "improvement": seen.improvement._asdict(),
        "error_ratio": seen.error_ratio._asdict(),
    }


def _seconds(histogram: Histogram) -> dict[str, float]:
    quantiles = {name: histogram.quantile_seconds(quantile) for name, quantile in QUANTILES.items()}
    return {"mean": histogram.mean_seconds, **quantiles, "max": histogram.max_seconds}
