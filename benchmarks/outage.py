"""A server is away for half a minute while twice as much is asked of it as it can do: what do retries make of that?

An application on asyncpg has sums over some accounts computed, with Poisson arrivals at twice what it does in a
closed loop, and users who go away after some seconds. In the middle the server is stopped (fast), and started again
when the outage is over. One application calls through `RetryingCaller`, with its budget, circuit and limiter; the
other one has a pool of as many connections as ours may have, and tries again at once until its user is gone.

calls
    Attempts that went to the server, to connect to it or to ask; each request that was served needs one.
recovered
    From the beginning of the outage until as many are served as before, less a tenth.

    python benchmarks/outage.py --seconds 30
"""

import argparse
import asyncio
import json
import os
import random
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
from psycopg.conninfo import conninfo_to_dict
from running import run_benchmark

from ml_postgres_optimization.errors import GenesisError
from ml_postgres_optimization.retry import ConcurrencyLimit, ConcurrencyLimiter, RetryingCaller, RetryPolicy
from ml_postgres_optimization.target.embedded import EmbeddedServer, find_binaries
from ml_postgres_optimization.workload import create_tables
from ml_postgres_optimization.workload.faults import FaultGround, FaultRecord, FaultRun, ServerRestart

RESULT = Path(__file__).resolve().parent / "results" / "outage.json"
# some milliseconds of the server's processor, so that the client, one process, is not what is slow
QUERY = "SELECT sum(length(md5(filler))) FROM genesis_load.accounts WHERE account_id BETWEEN $1 AND $1 + 4000"
SCALE, ACCOUNTS = 0.05, 20_000
CONNECTIONS, PATIENCE_SECONDS, OVERLOAD = 40, 5.0, 2.0
# a queue that takes as long as the patience would let in those only who are about to go
QUEUE_SECONDS = 1.0
CLOSED_LOOP_USERS = 8
GOAL_CALLS_RATIO, GOAL_RECOVERY_RATIO = 1.2, 2.0
_RECOVERED_RATIO, _LOOK_SECONDS, _TICK_SECONDS = 0.9, 0.5, 0.005
FAILURES = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    GenesisError,
)


class Application:
    """Requests to one server, on connections that are kept."""

    def __init__(self, dsn: str) -> None:
        given = conninfo_to_dict(dsn)
        self._where = {"host": given["host"], "port": given["port"], "user": given["user"]}
        self._where["database"] = given.get("dbname", given["user"])
        self._idle: list[asyncpg.Connection] = []
        self.limit = ConcurrencyLimit(CLOSED_LOOP_USERS, most=CONNECTIONS)
        self._caller = RetryingCaller(
            RetryPolicy(is_idempotent=True, total_seconds=PATIENCE_SECONDS),
            limiter=ConcurrencyLimiter(self.limit, wait_seconds=QUEUE_SECONDS),
        )
        self._pool = asyncio.Semaphore(CONNECTIONS)
        self.calls = 0
        self.served: list[float] = []
        self.requests = 0

    async def call(self) -> None:
        """Ask once, on a connection that is there, or on a new one."""
        self.calls += 1
        connection = self._kept() or await asyncpg.connect(**self._where, timeout=PATIENCE_SECONDS)
        try:
            await connection.fetchval(QUERY, random.randrange(1, ACCOUNTS - 4000))
        except BaseException:
            connection.terminate()
            raise
        self._idle.append(connection)

    def _kept(self) -> asyncpg.Connection | None:
        """Return a connection that is there; as every pool does, none of which the end is known."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        return None

    async def ours(self) -> None:
        """Ask through the library."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._caller.call_async(self.call)

    async def naive(self) -> None:
        """Ask until it works, at once, as long as the user is there."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                async with self._pool:
                    try:
                        return await self.call()
                    except FAILURES:
                        await asyncio.sleep(0)

    async def request(self, way: Callable[[], Awaitable[None]]) -> None:
        """Count a request, and whether and when it was served."""
        self.requests += 1
        try:
            await way()
        except FAILURES:
            return
        self.served.append(time.monotonic())

    async def close(self) -> None:
        """Leave nothing open."""
        for connection in self._idle:
            await connection.close()


async def capacity(dsn: str, seconds: float) -> float:
    """Return what a closed loop of a few users does in a second."""
    application, until = Application(dsn), time.monotonic() + seconds

    async def user() -> None:
        while time.monotonic() < until:
            await application.request(application.call)

    await asyncio.gather(*(user() for _ in range(CLOSED_LOOP_USERS)))
    await application.close()
    return len(application.served) / seconds


async def run(server: EmbeddedServer, way: str, rate: float, seconds: float, seed: int) -> dict[str, object]:
    """Offer the load, take the server away, and count."""
    application, draw = Application(server.dsn), random.Random(seed)
    before_seconds, after_seconds = max(2.0, seconds / 3), 2.0 * seconds + 2.0
    outage = FaultRun(ServerRestart(seconds), FaultGround(server.dsn, server=server))
    began = due = time.monotonic()
    under_way: set[asyncio.Task[None]] = set()
    ends, goes_out = began + before_seconds + seconds + after_seconds, began + before_seconds
    while (now := time.monotonic()) < ends:
        if now >= goes_out:
            outage.start()
            goes_out = ends
        while due <= now:
            task = asyncio.create_task(application.request(getattr(application, way)))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            due += draw.expovariate(rate)
        await asyncio.sleep(_TICK_SECONDS)
    await asyncio.gather(*under_way)
    record = await asyncio.to_thread(outage.wait)
    await application.close()
    return {"way": way, **figures(application, record, began)}


def figures(application: Application, record: FaultRecord, began: float) -> dict[str, object]:
    """Return what came of a run."""
    out, back = record.began_seconds, record.ended_seconds
    assert out is not None and back is not None and record.failure is None, record
    # the first half of the time before is for connections and the limit to find their place
    since = began + (out - began) / 2
    usual = sum(since <= at < out for at in application.served) / (out - since)
    recovered, look = None, back
    while recovered is None and look < application.served[-1] - _LOOK_SECONDS:
        served = sum(look <= at < look + _LOOK_SECONDS for at in application.served) / _LOOK_SECONDS
        if served >= _RECOVERED_RATIO * usual:
            recovered = look + _LOOK_SECONDS - out
        look += _LOOK_SECONDS / 5
    return {
        "requests": application.requests,
        "served": len(application.served),
        "calls": application.calls,
        "calls_ratio": application.calls / len(application.served),
        "outage_seconds": back - out,
        "served_per_second_before": usual,
        "recovered_seconds": recovered,
        "limit_settled": application.limit.settled,
        "recovery_ratio": None if recovered is None else recovered / (back - out),
    }


def show(runs: list[dict]) -> None:
    """Print the table."""
    heads = ("requests", "served", "calls", "calls/served", "before, /s", "outage", "recovered after")
    print(f"{'':>6}" + "".join(f"{head:>16}" for head in heads))
    for row in runs:
        recovered = "never" if row["recovered_seconds"] is None else f"{row['recovered_seconds']:.1f} s"
        counts = (f"{row[name]:,}" for name in ("requests", "served", "calls"))
        cells = (*counts, f"{row['calls_ratio']:.2f}", f"{row['served_per_second_before']:,.0f}")
        print(
            f"{row['way']:>6}"
            + "".join(f"{cell:>16}" for cell in (*cells, f"{row['outage_seconds']:.1f} s", recovered))
        )
    ours = [row for row in runs if row["way"] == "ours"]
    is_met = all(
        row["calls_ratio"] <= GOAL_CALLS_RATIO and (row["recovery_ratio"] or 1e9) <= GOAL_RECOVERY_RATIO
        for row in ours
    )
    print(
        f"goal: at most {GOAL_CALLS_RATIO} calls for each that was served, recovered within {GOAL_RECOVERY_RATIO:g} "
        f"times the outage: {'met' if is_met else 'MISSED'}"
    )


def main() -> None:
    """Start a server, measure, store and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="length of the outage")
    parser.add_argument("--runs", type=int, default=1, help="of each way")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="genesis-benchmark-") as folder:
        Path(folder).chmod(0o755)
        with EmbeddedServer.start(
            Path(folder) / "home", binaries=find_binaries(None), system_state=Path(folder) / "system"
        ) as server:
            create_tables(server.dsn, SCALE)
            per_second = asyncio.run(capacity(server.dsn, min(5.0, arguments.seconds)))
            runs = [
                asyncio.run(run(server, way, OVERLOAD * per_second, arguments.seconds, seed))
                for seed in range(arguments.runs)
                for way in ("naive", "ours")
            ]
            result = {
                "server_version_num": server.version_num,
                "cores": len(os.sched_getaffinity(0)),
                "load_average_at_end": os.getloadavg()[0],
                "capacity_per_second": per_second,
                "runs": runs,
            }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"capacity {per_second:,.0f}/s, offered {OVERLOAD * per_second:,.0f}/s")
    show(runs)


if __name__ == "__main__":
    run_benchmark(main)
