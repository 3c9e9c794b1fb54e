"""How often a trial errs, and how soon it finds what is there.

Whole trials (`run_trial`: reference block, guards, paired test, verdict), on a clock that is made up and on blocks
that are drawn. First with equal arms, under noise of five kinds that real servers show: white, autocorrelated from
block to block (AR(1), 0.8), heavy-tailed, drifting, and a checkpoint in every fourth block. A trial errs that
promotes. Then with a candidate that is 10 % faster, under white noise of 30 % in each block, with up to 300 pairs.

    python benchmarks/trial_statistics.py --trials 1000
"""

import argparse
import json
import math
import os
import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path

import numpy as np
from numpy.random import Generator

from ml_postgres_optimization.knobs.configuration import Change, Configuration
from ml_postgres_optimization.telemetry import Histogram, OperationWindow, VirtualClock, Window
from ml_postgres_optimization.trials import Outcome, Proposal, Switchback, Thresholds, TrialPlan, run_trial

RESULT = Path(__file__).resolve().parent / "results" / "trial_statistics.json"
BASELINE = Configuration({"work_mem": 4096})
CANDIDATE = BASELINE.replaced({"work_mem": 8192})
LATENCY_SECONDS = 0.005
OPERATIONS = 200
GAIN_RATIO = 0.9
GOAL_PROMOTED_RATIO = 0.05
GOAL_FOUND_RATIO = 0.8
# A trial without end would see all of its pairs; a pair more is two blocks, and the reference comes first.
PAIRS = {"equal": 30, "faster": 300}
SPARE_BLOCKS = 40


def white(rng: Generator, blocks: int) -> np.ndarray:
    """Each block by itself."""
    return 0.3 * rng.standard_normal(blocks)


def autocorrelated(rng: Generator, blocks: int) -> np.ndarray:
    """Good and bad times that last: AR(1) with 0.8, of 30 % in the long run."""
    noise = np.zeros(blocks)
    noise[0] = 0.3 * rng.standard_normal()
    for block in range(1, blocks):
        noise[block] = 0.8 * noise[block - 1] + 0.3 * math.sqrt(1 - 0.8**2) * rng.standard_normal()
    return noise


def heavy_tailed(rng: Generator, blocks: int) -> np.ndarray:
    """Student's t with 1.5 degrees of freedom, which has no variance."""
    return 0.1 * rng.standard_t(1.5, blocks)


def drifting(rng: Generator, blocks: int) -> np.ndarray:
    """Seven times as slow at the end as at the start."""
    return np.linspace(0, 2, blocks) + 0.05 * rng.standard_normal(blocks)


def checkpoints(rng: Generator, blocks: int) -> np.ndarray:
    """Twice as slow in every fourth block, in step with the pairs."""
    return 0.7 * ((np.arange(blocks) + rng.integers(4)) % 4 == 0) + 0.05 * rng.standard_normal(blocks)


NOISES = (white, autocorrelated, heavy_tailed, drifting, checkpoints)


class NoisyArena:
    """Blocks whose latency is drawn."""

    def __init__(self, levels: np.ndarray, ratio: float, rng: Generator) -> None:
        self.clock = VirtualClock()
        self._levels = iter(levels.tolist())
        self._ratio = ratio
        self._rng = rng
        self._in_force = BASELINE

    def switch(self, configuration: Configuration) -> None:
        """Put `configuration` in force."""
        self._in_force = configuration

    def settle(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.sleep(seconds)

    def measure(self, seconds: float, *, labels: dict[str, str]) -> Window:
        """Draw a block."""
        self.clock.sleep(seconds)
        latency = LATENCY_SECONDS * math.exp(next(self._levels))
        latency *= self._ratio if self._in_force == CANDIDATE else 1.0
        response = Histogram.of(latency * self._rng.lognormal(0, 0.5, OPERATIONS))
        now = self.clock.now()
        operations = {"read": OperationWindow(response, response)}
        started_at = now - timedelta(seconds=seconds)
        return Window(started_at, now, self._in_force.id, labels, operations=operations)


def trial(noise: Callable[[Generator, int], np.ndarray], ratio: float, plan: TrialPlan, seed: int) -> tuple[str, int]:
    """Hold one, and return its outcome and the pairs that it took."""
    rng = np.random.default_rng(seed)
    arena = NoisyArena(noise(rng, 3 * plan.max_pairs + SPARE_BLOCKS), ratio, rng)
    held = run_trial(
        Switchback(arena, plan, Change(BASELINE, CANDIDATE)),
        Proposal(CANDIDATE, "user", "to see"),
        clock=arena.clock,
        rng=random.Random(seed),
        trial_id=str(seed),
    )
    return str(held.verdict.outcome), len(held.verdict.pairs)


def study(pool: ProcessPoolExecutor, hold: Callable[[int], tuple[str, int]], trials: int) -> dict[str, object]:
    """Hold many, and return how they ended."""
    ended = list(pool.map(hold, range(trials), chunksize=max(1, trials // 50)))
    outcomes = Counter(outcome for outcome, _ in ended)
    found = [pairs for outcome, pairs in ended if outcome == Outcome.PROMOTED]
    return {
        "trials": trials,
        "outcomes": dict(outcomes),
        "promoted_ratio": outcomes[Outcome.PROMOTED] / trials,
        "pairs_of_promoted": [float(quantile) for quantile in np.quantile(found, (0.1, 0.5, 0.9))] if found else [],
        "pairs_mean": float(np.mean([pairs for _, pairs in ended])),
    }


def show(equal: dict[str, dict[str, object]], faster: dict[str, dict[str, object]]) -> None:
    """Print both tables."""
    names = [str(outcome) for outcome in Outcome]
    print(f"{'equal arms':<32}" + "".join(f"{name:>12}" for name in names) + f"{'pairs, mean':>14}")
    for name, result in equal.items():
        counts = "".join(f"{result['outcomes'].get(outcome, 0):>12}" for outcome in names)
        print(f"{name:<32}{counts}{result['pairs_mean']:>14.1f}")
    worst = max(result["promoted_ratio"] for result in equal.values())
    print(f"promoted at most {worst:.1%}, goal {GOAL_PROMOTED_RATIO:.0%}: {verdict(worst <= GOAL_PROMOTED_RATIO)}")
    print(f"\n{'10 % faster, 30 % white noise':<32}{'found':>12}{'pairs: 10 %':>14}{'median':>10}{'90 %':>10}")
    for name, result in faster.items():
        pairs = "".join(f"{pairs:>10.0f}" for pairs in result["pairs_of_promoted"])
        print(f"{name:<32}{result['promoted_ratio']:>12.1%}    {pairs}  {result['outcomes']}")
    found = faster["never given up"]["promoted_ratio"]
    print(f"found {found:.1%}, goal {GOAL_FOUND_RATIO:.0%}: {verdict(found >= GOAL_FOUND_RATIO)}")


def verdict(is_met: bool) -> str:
    """Say whether a goal is met."""
    return "met" if is_met else "MISSED"


def main() -> None:
    """Hold the trials, store and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000, help="of each noise; the last two rows take a fifth")
    trials = parser.parse_args().trials
    patient = Thresholds(futility_alpha=None)
    plans = {
        "never given up": TrialPlan(max_pairs=PAIRS["faster"], thresholds=patient),
        "as it is": TrialPlan(max_pairs=PAIRS["faster"]),
    }
    with ProcessPoolExecutor() as pool:
        plan = TrialPlan(max_pairs=PAIRS["equal"], thresholds=patient)
        equal = {noise.__name__: study(pool, partial(trial, noise, 1.0, plan), trials) for noise in NOISES}
        faster = {
            name: study(pool, partial(trial, white, GAIN_RATIO, plan), max(1, trials // 5))
            for name, plan in plans.items()
        }
    result = {"equal": equal, "faster": faster, "cores": len(os.sched_getaffinity(0))}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    show(equal, faster)


if __name__ == "__main__":
    main()
