"""What the collectors cost the server that they observe.

The same closed loop (single-row select by primary key, prepared) with and without them: a snapshot every 10 s and
activity once a second, as `telemetry.Recorder` asks for them. Blocks run in the order A B B A (with, without,
without, with), so that a drift of the machine hits both. The load comes from pgbench where it is installed, else from
our generator. The interval is that of the sign test: distribution-free, for the median.

    python benchmarks/monitoring_cost.py --pairs 20 --seconds 12
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import psycopg
from generator import SCALE, median_interval, ours, pgbench

from ml_postgres_optimization.target.embedded import EmbeddedServer, find_binaries
from ml_postgres_optimization.target.postgres.connection import resolve_connection
from ml_postgres_optimization.target.postgres.server import PostgresTarget
from ml_postgres_optimization.workload import create_tables

RESULT = Path(__file__).resolve().parent / "results" / "monitoring_cost.json"
SNAPSHOT_INTERVAL_SECONDS = 10.0
ACTIVITY_INTERVAL_SECONDS = 1.0
GOAL_RATIO = 0.99


class Observer:
    """Ask as often as a recorder does while something runs, and time the asking."""

    def __init__(self, target: PostgresTarget) -> None:
        self._target = target
        self.snapshot_seconds: list[float] = []
        self.activity_seconds: list[float] = []

    def observe(self, load: Future[float]) -> None:
        """Observe until `load` is done, from a snapshot at its beginning on."""
        begun = time.monotonic()
        snapshots = 0
        while not load.done():
            if time.monotonic() - begun >= snapshots * SNAPSHOT_INTERVAL_SECONDS:
                self.snapshot_seconds.append(timed(self._target.snapshot))
                snapshots += 1
            self.activity_seconds.append(timed(self._target.activity))
            wait([load], timeout=ACTIVITY_INTERVAL_SECONDS)


def timed(action) -> float:
    """Return how long `action` took."""
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def block(server: EmbeddedServer, connections: int, seconds: float, observer: Observer | None) -> float:
    """Return operations per second of one block, observed or not."""
    run = pgbench if (server.bin_directory / "pgbench").exists() else ours
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(run, server, connections, seconds)
        if observer is not None:
            observer.observe(load)
        return load.result()


def compare(server: EmbeddedServer, connections: int, pairs: int, seconds: float) -> dict[str, object]:
    """Run observed and unobserved blocks interleaved."""
    rates: dict[bool, list[float]] = {True: [], False: []}
    with PostgresTarget.open(resolve_connection(server.dsn, {})) as target:
        observer = Observer(target)
        block(server, connections, min(seconds, 3.0), observer)
        for number in range(pairs):
            for observed in (True, False) if number % 2 == 0 else (False, True):
                rates[observed].append(block(server, connections, seconds, observer if observed else None))
    ratios = [with_it / without for with_it, without in zip(rates[True], rates[False], strict=True)]
    low, high, coverage = median_interval(ratios)
    return {
        "connections": connections,
        "observed_per_second": statistics.median(rates[True]),
        "unobserved_per_second": statistics.median(rates[False]),
        "ratio": statistics.median(ratios),
        "ratio_low": low,
        "ratio_high": high,
        "interval_coverage": coverage,
        "pairs": pairs,
        "seconds": seconds,
        "snapshot_seconds": statistics.median(observer.snapshot_seconds),
        "activity_seconds": statistics.median(observer.activity_seconds),
    }


def start(folder: Path, pg_bin: Path | None) -> EmbeddedServer:
    """Start a server with our tables, and with pg_stat_statements where there is one."""
    binaries = find_binaries(pg_bin)
    has_statements = binaries.has_library("pg_stat_statements")
    settings = {"shared_preload_libraries": "pg_stat_statements"} if has_statements else {}
    server = EmbeddedServer.start(
        folder / "home", binaries=binaries, settings=settings, system_state=folder / "system"
    )
    create_tables(server.dsn, SCALE)
    if has_statements:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION pg_stat_statements")
    return server


def show(row: dict[str, object]) -> None:
    """Print what came out."""
    met = "met" if row["ratio"] >= GOAL_RATIO else "MISSED"
    print(
        f"{row['connections']} connections, {row['pairs']} pairs of {row['seconds']:g} s\n"
        f"with collectors    {row['observed_per_second']:>9,.0f}/s\n"
        f"without            {row['unobserved_per_second']:>9,.0f}/s\n"
        f"ratio              {row['ratio']:>9.4f}   {row['ratio_low']:.4f} … {row['ratio_high']:.4f}"
        f" ({row['interval_coverage']:.0%} interval), goal ≥ {GOAL_RATIO}: {met}\n"
        f"under that load, a snapshot takes {1e3 * row['snapshot_seconds']:.1f} ms, "
        f"activity {1e3 * row['activity_seconds']:.1f} ms"
    )


def main() -> None:
    """Start a server, measure, store and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20, help="blocks with, and as many without")
    parser.add_argument("--seconds", type=float, default=12.0, help="length of a block")
    parser.add_argument("--connections", type=int, default=8, help="of the load")
    parser.add_argument("--pg-bin", type=Path, default=None, help="folder of PostgreSQL's programs")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="genesis-benchmark-") as folder:
        Path(folder).chmod(0o755)
        with start(Path(folder), arguments.pg_bin) as server:
            row = compare(server, arguments.connections, arguments.pairs, arguments.seconds)
            result = {
                "server_version_num": server.version_num,
                "cores": len(os.sched_getaffinity(0)),
                "load_average_at_end": os.getloadavg()[0],
                **row,
            }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    show(row)


if __name__ == "__main__":
    main()
