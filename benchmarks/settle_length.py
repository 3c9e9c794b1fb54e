"""How often a transient after a switch is seen that is there, and how often one that is not.

Pairs of traces in windows of half a second, as a trial looks into them (`transient_steps`), beside MSER
(K. P. White 1997): the number of first windows without which the standard error of the mean is least. Stationary
noise of five kinds, where nothing should be found; then one arm that starts off twice or one and a half times as slow
and decays. "Twice" says how often two pairs in a row show it, which is what it takes before more is discarded.

    python benchmarks/settle_length.py --pairs 2000
"""

import argparse
import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.random import Generator

from ml_postgres_optimization.trials.layout.settling import transient_steps

RESULT = Path(__file__).resolve().parent / "results" / "settle_length.json"
STEPS = (10, 20)
STEP_SECONDS = 0.5
SETTLE_SECONDS = 2.0
GOAL_QUIET_RATIO = 0.9
DECAYS = {
    f"+{excess:.0%} at the switch, decay {decay:g} s, noise {noise:.0%}": (excess, decay, noise)
    for excess, decay in ((2.0, 2.5), (1.0, 2.0), (1.0, 4.0), (0.5, 4.0), (1.0, 20.0))
    for noise in (0.03, 0.1)
}


def autocorrelated(rng: Generator, steps: int, *, correlation: float, deviation: float = 0.1) -> np.ndarray:
    """AR(1); white with a correlation of 0."""
    noise = np.zeros(steps)
    noise[0] = rng.standard_normal()
    for step in range(1, steps):
        noise[step] = correlation * noise[step - 1] + math.sqrt(1 - correlation**2) * rng.standard_normal()
    return deviation * noise


def heavy_tailed(rng: Generator, steps: int) -> np.ndarray:
    """Student's t with 2 degrees of freedom."""
    return 0.05 * rng.standard_t(2, steps)


def stalling(rng: Generator, steps: int) -> np.ndarray:
    """A stall of 1.5 s in every other block, anywhere."""
    noise = 0.03 * rng.standard_normal(steps)
    if rng.random() < 0.5:
        began = int(rng.integers(-2, steps))
        noise[max(began, 0) : began + 3] += 1.5
    return noise


# What lasts for seconds cannot be told from a transient of seconds: shown, and not judged.
DRIFTING = "AR(1), 0.8"
STATIONARY: dict[str, Callable[[Generator, int], np.ndarray]] = {
    "white": partial(autocorrelated, correlation=0.0),
    "AR(1), 0.5": partial(autocorrelated, correlation=0.5),
    DRIFTING: partial(autocorrelated, correlation=0.8),
    "heavy-tailed": heavy_tailed,
    "stalls": stalling,
}


def decaying(rng: Generator, steps: int, *, excess: float, decay_seconds: float, deviation: float) -> np.ndarray:
    """Log-response of a block that begins `SETTLE_SECONDS` after the switch."""
    seconds = SETTLE_SECONDS + STEP_SECONDS * np.arange(steps)
    return np.log1p(excess * np.exp(-seconds / decay_seconds)) + deviation * rng.standard_normal(steps)


def mser(trace: np.ndarray) -> int:
    """Return how many of the first windows MSER would truncate, half of them at most."""
    rests = [trace[steps:] for steps in range(len(trace) // 2 + 1)]
    return int(np.argmin([rest.var() / len(rest) for rest in rests]))


def found(
    first: Callable[[int], np.ndarray], second: Callable[[int], np.ndarray], pairs: int
) -> dict[str, list[float]]:
    """Look into `pairs` pairs of each length; return the shares of those that show a transient."""
    result: dict[str, list[float]] = {"found": [], "twice": [], "mser": []}
    for steps in STEPS:
        traces = [(first(steps), second(steps)) for _ in range(pairs)]
        share = float(np.mean([transient_steps(np.exp(pair)) > 0 for pair in traces]))
        result["found"].append(share)
        result["twice"].append(share**2)
        result["mser"].append(float(np.mean([max(map(mser, pair)) > 0 for pair in traces])))
    return result


def main() -> None:
    """Draw, look, store and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2000, help="of each kind")
    pairs = parser.parse_args().pairs
    rng = np.random.default_rng(1)
    result = {name: found(partial(noise, rng), partial(noise, rng), pairs) for name, noise in STATIONARY.items()}
    for name, (excess, decay, deviation) in DECAYS.items():
        slow = partial(decaying, rng, excess=excess, decay_seconds=decay, deviation=deviation)
        steady = partial(autocorrelated, rng, correlation=0.0, deviation=deviation)
        result[name] = found(slow, steady, pairs)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    lengths = " and ".join(f"{STEP_SECONDS * steps:g} s" for steps in STEPS)
    print(f"{'blocks of ' + lengths:<52}found       twice      MSER")
    for name, shares in result.items():
        print(f"{name:<48}" + "".join(f"  {one:>4.0%} {other:>4.0%}" for one, other in shares.values()))
    quiet = 1 - max(max(result[name]["twice"]) for name in STATIONARY if name != DRIFTING)
    met = "met" if quiet >= GOAL_QUIET_RATIO else "MISSED"
    print(f"nothing to settle, and nothing changed: {quiet:.1%} at least, goal {GOAL_QUIET_RATIO:.0%}: {met}")


if __name__ == "__main__":
    main()
