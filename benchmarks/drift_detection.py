"""How often a drift is found that is there, and how often one that is not.

Minute figures of a run of 72 hours, with noise that has a memory of minutes or of hours, heavy tails or a daily cycle
of any phase, go through what judges a soak (`assess`, four metrics, Holm's correction). First without any drift: a
false alarm is a run in which any of the four is said to have drifted, and a false shift one in which any is said to
have changed its level. Then one of the four gets 10 % slower over the run, at last by the size that the run itself
said it would find in nine of ten.

    python benchmarks/drift_detection.py --runs 400
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
from numpy.random import Generator

from ml_postgres_optimization.soak.figures.columns import Columns
from ml_postgres_optimization.soak.figures.fold import RunFigures
from ml_postgres_optimization.soak.figures.totals import Totals
from ml_postgres_optimization.soak.judging.drift.assessment import assess
from ml_postgres_optimization.soak.judging.limits import DEFAULT_DRIFT_METRICS, DriftLimits
from ml_postgres_optimization.soak.judging.metrics import METRICS

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "soak"))

from simulated_run import SimulatedRun, autocorrelated  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "drift_detection.json"
HOURS = 72
MINUTES = 60 * HOURS
LIMITS = DriftLimits()
GOAL_FALSE_RATIO, GOAL_FOUND_RATIO = 0.05, 0.9
# A tenth of noise in a minute's p99.9 is much; hours of memory are for what a neighbour or a disk does.
BY_MINUTE, BY_HOUR = 0.1, 0.03
HARDEST = "AR(1) of 0.8 from hour to hour"


def by_minute(correlation: float, rng: Generator, *, heavy: bool = False) -> np.ndarray:
    """Noise of the logarithm whose memory is one of minutes."""
    return BY_MINUTE * autocorrelated(rng, MINUTES, correlation, heavy=heavy)


def by_hour(correlation: float, rng: Generator) -> np.ndarray:
    """The same with a memory of hours on top."""
    return by_minute(0.0, rng) + np.repeat(BY_HOUR * autocorrelated(rng, HOURS, correlation), 60)


def cycle(rng: Generator) -> np.ndarray:
    """Office hours, ×1.6, of any phase, in the logarithm."""
    hour = (np.arange(MINUTES) / 60 + rng.uniform(0, 24)) % 24
    return 0.4 * ((hour > 8) & (hour < 18)) + 0.1 * np.sin(2 * np.pi * hour / 24)


KINDS = {
    "white": (partial(by_minute, 0.0), False),
    "AR(1) of 0.5 from minute to minute": (partial(by_minute, 0.5), False),
    "AR(1) of 0.8 from minute to minute": (partial(by_minute, 0.8), False),
    "the same, heavy-tailed": (partial(by_minute, 0.8, heavy=True), False),
    "AR(1) of 0.8 from minute to minute, daily cycle": (partial(by_minute, 0.8), True),
    "AR(1) of 0.5 from hour to hour": (partial(by_hour, 0.5), False),
    "AR(1) of 0.5 from hour to hour, daily cycle": (partial(by_hour, 0.5), True),
    HARDEST: (partial(by_hour, 0.8), False),
}


def run_of(kind: str, drift_ratio: float, rng: Generator) -> RunFigures:
    """Return a run's figures; its p99 grows by `drift_ratio` to the end."""
    noise, has_cycle = KINDS[kind]
    load = cycle(rng) if has_cycle else np.zeros(MINUTES)
    growth = np.log1p(drift_ratio) * np.arange(MINUTES) / MINUTES
    columns = Columns(60.0)
    series = {
        "load.offered": 300 * np.exp(load),
        "load.succeeded": 300 * np.exp(load) * (1 - 0.001 * rng.random(MINUTES)),
        "response.mean": 0.002 * np.exp(load + noise(rng)),
        "response.p99": 0.010 * np.exp(load + noise(rng) + growth),
        "response.p99_9": 0.030 * np.exp(load + 1.5 * noise(rng)),
    }
    for minute in range(MINUTES):
        columns.put(minute, {name: values[minute] for name, values in series.items()})
    description = SimulatedRun(hours=HOURS).description
    return RunFigures(description, Totals(), columns, columns, (), (), MINUTES, HOURS * 3600.0, {})


def looked_at(kind: str, drift_ratio: float, runs: int, rng: Generator) -> dict[str, float]:
    """Judge `runs` runs; return shares: any drift, p99's, any shift; and what would have been found."""
    metrics = {name: METRICS[name] for name in DEFAULT_DRIFT_METRICS}
    found: dict[str, list[float]] = {"any": [], "p99": [], "shift": [], "detectable": []}
    for _ in range(runs):
        figures = run_of(kind, drift_ratio, rng)
        drifts = assess(figures, metrics, LIMITS.minimum_ratio, LIMITS.confidence_ratio)
        found["any"].append(any(drift.found for drift in drifts.values()))
        found["p99"].append(drifts["p99"].is_worse)
        found["shift"].append(any(drift.shifts_hours for drift in drifts.values()))
        found["detectable"].append(drifts["p99"].detectable_ratio)
    return {name: float(np.mean(values)) for name, values in found.items()}


def main() -> None:
    """Draw, judge, store and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=400, help="of each kind, with and without a drift")
    runs = parser.parse_args().runs
    rng = np.random.default_rng(1)
    result = {}
    print(f"{'':<50}false alarm  shift   10 %  would find  finds it")
    for kind in KINDS:
        still, drifting = (looked_at(kind, drift, runs, rng) for drift in (0.0, 0.1))
        itself = looked_at(kind, still["detectable"], runs, rng)
        result[kind] = {
            "false": still["any"],
            "shift": still["shift"],
            "found": drifting["p99"],
            "detectable": still["detectable"], "detectable_found": itself["p99"],
        }  # fmt: skip
        shares = f"{still['any']:>10.1%}{still['shift']:>8.1%}{drifting['p99']:>7.0%}"
        print(f"{kind:<50}{shares}{still['detectable']:>11.1%}{itself['p99']:>10.0%}", flush=True)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    judged = {kind: figures for kind, figures in result.items() if kind != HARDEST}
    false = max(figures["false"] for figures in judged.values())
    least = min(figures["found"] for kind, figures in judged.items() if "hour to hour" not in kind)
    print(f"false alarms {false:.1%} at most, goal {GOAL_FALSE_RATIO:.0%}: {_met(false <= GOAL_FALSE_RATIO)}")
    print(f"10 % found in {least:.0%} at least, goal {GOAL_FOUND_RATIO:.0%}: {_met(least >= GOAL_FOUND_RATIO)}")


def _met(is_met: bool) -> str:
    return "met" if is_met else "MISSED"


if __name__ == "__main__":
    main()
