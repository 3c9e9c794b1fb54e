"""What retries and the limiter cost the load generator where nothing fails.

The workers of a client process, 8 for 64 users in flight, on sessions that answer at the next turn of the event loop:
what is measured is the client's own processor time for an operation. The four ways take turns in an order drawn by
lot; what is told is the median over the rounds of what each costs beyond a load with neither.

    python benchmarks/load_cost.py --rounds 20 --operations 50000
"""

import argparse
import asyncio
import gc
import json
import random
import statistics
import time
from collections import defaultdict
from pathlib import Path

import uvloop

from ml_postgres_optimization.workload import LoadLimiter, LoadRetries, OperationKind, OperationMix
from ml_postgres_optimization.workload.arrival import Stream, ZipfKeys
from ml_postgres_optimization.workload.process.driver import Driver
from ml_postgres_optimization.workload.process.messages import Share
from ml_postgres_optimization.workload.process.schedule import ClosedLoop
from ml_postgres_optimization.workload.process.serving import Calls

RESULT = Path(__file__).resolve().parent / "results" / "load_cost.json"
READS = OperationMix({OperationKind.READ: 1})
SHARE = Share(connections=8, clients=64, rate_per_second=None, mix=READS)
# as many as half of the workers, so that it binds
LIMITER = LoadLimiter(initial=4, most=4)
WAYS = {"neither": (), "retries": ("calls",), "limiter": ("new_limit",), "both": ("calls", "new_limit")}


class AtOnce:
    """A session that answers at the next turn of the loop."""

    def __init__(self, settings) -> None:
        self.settings = settings
        self.performers = [self.perform] * len(OperationKind)

    async def perform(self, _key, _other_key, _amount) -> None:
        """Answer."""
        await asyncio.sleep(0)

    def is_closed(self) -> bool:
        """Tell that it is open."""
        return False

    async def close(self) -> None:
        """Do nothing."""


async def session(settings) -> AtOnce:
    """Open a session."""
    return AtOnce(settings)


async def cost_seconds(parts: tuple[str, ...], operations: int) -> float:
    """Return the processor time for an operation."""
    ready = {"calls": Calls(LoadRetries(), READS), "new_limit": LIMITER.limit}
    chosen = {part: ready[part] for part in parts}
    driver = Driver(session, READS, queue_limit=1_000_000, keeps_lag=False, coin=random.Random(1), **chosen)
    driver.set_connections(SHARE.connections)
    while not driver.is_complete:
        await asyncio.sleep(0)
    gc.collect()
    driver.begin(ClosedLoop(Stream(1, 0, ZipfKeys(1_000, 0.99)), SHARE))
    began, done = time.process_time(), 0
    while done < operations:
        await asyncio.sleep(0.02)
        done += sum(len(batch) for batch in driver.take_batches())
    taken = time.process_time() - began
    await driver.stop(1.0)
    return taken / done


def main() -> None:
    """Measure, store and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--operations", type=int, default=50_000)
    arguments = parser.parse_args()
    rng, taken = random.Random(1), defaultdict(list)
    for _ in range(arguments.rounds):
        for name in rng.sample(list(WAYS), len(WAYS)):
            taken[name].append(1e6 * uvloop.run(cost_seconds(WAYS[name], arguments.operations)))
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({"microseconds": taken}) + "\n", encoding="utf-8")
    for name, costs in taken.items():
        beyond = [cost - bare for cost, bare in zip(costs, taken["neither"], strict=True)]
        print(f"{name:<8} {statistics.median(costs):6.2f} µs, {statistics.median(beyond):+6.2f} µs beyond neither")


if __name__ == "__main__":
    main()
