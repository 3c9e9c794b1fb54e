"""What a retried call costs where nothing fails.

A function that does nothing is called bare, through each of the three doors, and with a limiter; stretches of calls
take turns in an order drawn by lot, so that a drift of the machine is nobody's. What is told is the median over the
stretches of what a call costs beyond the bare one.

    python benchmarks/retry_cost.py --rounds 50 --calls 20000
"""

import argparse
import json
import random
import statistics
import time
from collections import defaultdict
from pathlib import Path

from ml_postgres_optimization.retry import ConcurrencyLimiter, RetryingCaller

RESULT = Path(__file__).resolve().parent / "results" / "retry_cost.json"
GOAL_MICROSECONDS = 5.0


def nothing() -> None:
    """Do nothing."""


def looped(caller: RetryingCaller) -> None:
    """Call by the loop."""
    for attempt in caller.attempts():
        with attempt:
            nothing()


def doors() -> dict[str, object]:
    """Return the ways to call."""
    caller, limited = RetryingCaller(), RetryingCaller(limiter=ConcurrencyLimiter())
    return {
        "bare": nothing,
        "decorator": caller.retry(nothing),
        "call": lambda: caller.call(nothing),
        "loop": lambda: looped(caller),
        "call with a limiter": lambda: limited.call(nothing),
    }


def main() -> None:
    """Measure, store and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--calls", type=int, default=20_000)
    arguments = parser.parse_args()
    ways, rng, taken = doors(), random.Random(1), defaultdict(list)
    for _ in range(arguments.rounds):
        for name in rng.sample(list(ways), len(ways)):
            way = ways[name]
            began = time.perf_counter()
            for _ in range(arguments.calls):
                way()
            taken[name].append((time.perf_counter() - began) / arguments.calls * 1e6)
    beyond = {
        name: [each - bare for each, bare in zip(times, taken["bare"], strict=True)]
        for name, times in taken.items()
        if name != "bare"
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({"beyond_bare_microseconds": beyond}) + "\n", encoding="utf-8")
    for name, each in beyond.items():
        low, high = statistics.quantiles(each, n=20)[0::18] if len(each) > 1 else (each[0], each[0])
        print(f"{name:<20} {statistics.median(each):6.2f} µs (5th to 95th percentile {low:.2f} to {high:.2f})")
    print(f"goal: at most {GOAL_MICROSECONDS:g} µs")


if __name__ == "__main__":
    main()
