"""Both arms of a trial in figures, and what happened to one of them more than to the other."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ml_postgres_optimization.telemetry import Window
from ml_postgres_optimization.trials.objective import mix_of, response_with_mix
from ml_postgres_optimization.trials.proposal import Arm, Design

# What the server does by itself, by the rates of a window that count it.
_DISTURBANCES = {
    "checkpoints": (
        "checkpointer.timed_checkpoints_per_second",
        "checkpointer.requested_checkpoints_per_second",
    ),
    "autovacuums": ("tables.autovacuums_per_second",),
}
# Were each of them as likely in every second of either arm, their numbers would be this many standard deviations off
# in 5 % of trials; fewer than so many of them are not worth a word.
_DEVIATIONS = 2.0
_FEWEST = 4


def figures_of(in_all: Mapping[Arm, Window], design: Design) -> dict[str, float]:
    """Describe both arms over all blocks, response times in the baseline's mix; what is not seen is absent."""
    figures: dict[str, float] = {}
    for arm, window in in_all.items():
        response = response_with_mix(window, mix_of(in_all[Arm.BASELINE]))
        figures |= {
            f"{arm}_mean_seconds": response.mean_seconds,
            f"{arm}_p95_seconds": response.quantile_seconds(0.95),
            f"{arm}_p99_seconds": response.quantile_seconds(0.99),
            f"{arm}_error_ratio": window.error_ratio,
            f"{arm}_throughput_per_second": window.throughput_per_second,
            f"{arm}_measured_seconds": window.duration_seconds,
        }
        # side by side, what the server does by itself happens to both
        if design is not Design.CONCURRENT:
            figures |= {f"{arm}_{name}": count for name, count in _disturbances(window).items()}
    return figures


def _disturbances(window: Window) -> dict[str, float]:
    seen = {
        name: [window.rates[rate] for rate in rates if rate in window.rates] for name, rates in _DISTURBANCES.items()
    }
    return {name: round(sum(rates) * window.duration_seconds, 3) for name, rates in seen.items() if rates}


def uneven(figures: Mapping[str, float]) -> str:
    """Say what the server did by itself in one arm far more often than in the other; empty where it did not.

    A coin spreads checkpoints and autovacuums over both arms, so that they cannot decide a trial; but by chance one
    arm may get more of them, and a candidate may cause them.
    """
    notes = []
    arms = (Arm.BASELINE, Arm.CANDIDATE)
    seconds = [figures.get(f"{arm}_measured_seconds", 0.0) for arm in arms]
    share = seconds[1] / sum(seconds) if sum(seconds) else 0.5
    for name in _DISTURBANCES:
        baseline, candidate = (figures.get(f"{arm}_{name}", 0.0) for arm in arms)
        in_all = baseline + candidate
        limit = _DEVIATIONS * math.sqrt(in_all * share * (1 - share))
        if in_all >= _FEWEST and abs(candidate - in_all * share) > limit:
            notes.append(f"{name}: {candidate:.0f} under the candidate, {baseline:.0f} under the baseline")
    return "; ".join(notes)


def unsettled(figures: Mapping[str, float]) -> str:
    """Say what was found of the time that the response takes to settle after a switch; empty where nothing was."""
    seconds = figures.get("settle_seconds", math.nan)
    if figures.get("settle_is_cut_off"):
        return f"the response takes longer to settle after a switch than the {seconds:.1f} s that may be discarded"
    if pairs := figures.get("settle_pairs_left_out"):
        return f"{pairs:.0f} pairs that began before the response had settled were left out"
    return ""
