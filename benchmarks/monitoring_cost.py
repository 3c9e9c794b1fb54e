"""What the collectors cost the server that they observe.

One pgbench runs all the time (closed loop, single-row select by primary key, prepared) and says every second what it
did. Stretches of two seconds with and without the collectors take turns, in an order that a coin draws within each
pair: so neither the start of a load nor a drift of the machine is taken for their cost. While they are on, they ask
as often as `telemetry.Recorder` does: activity once a second, a snapshot every ten seconds. The interval is that of
the sign test: distribution-free, for the median. Beside it stands the CPU time of collecting, in our process and in
its backend, as a share of all cores.

    python benchmarks/monitoring_cost.py --pairs 150
"""

import argparse
import json
import os
import random
import re
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg
from generator import SCALE, median_interval, pgbench_program
from psycopg.conninfo import conninfo_to_dict
from running import run_benchmark

from ml_postgres_optimization.target.embedded import EmbeddedServer, find_binaries
from ml_postgres_optimization.target.postgres.connection import resolve_connection
from ml_postgres_optimization.target.postgres.server import PostgresTarget
from ml_postgres_optimization.workload import create_tables
from ml_postgres_optimization.workload.tables import account_count

RESULT = Path(__file__).resolve().parent / "results" / "monitoring_cost.json"
GOAL_RATIO = 0.99
STRETCH_SECONDS = 2
SNAPSHOT_INTERVAL_SECONDS = 10
WARM_UP_SECONDS = 3
PROGRESS = re.compile(r"progress: [0-9.]+ s, ([0-9.]+) tps")
STATEMENT = "SELECT account_id, balance, updates_total, filler FROM genesis_load.accounts WHERE account_id = :id;\n"
COLLECTORS = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'genesis-pg%'"


def next_second(process: subprocess.Popen[str]) -> float:
    """Wait until pgbench has said what it did in the last second, and return operations per second."""
    for line in process.stderr:
        if found := PROGRESS.search(line):
            return float(found[1])
    raise RuntimeError("pgbench ended early")


@contextmanager
def load(server: EmbeddedServer, connections: int, seconds: int) -> Iterator[subprocess.Popen[str]]:
    """Run pgbench, for `seconds` at most."""
    parameters = conninfo_to_dict(server.dsn)
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(f"\\set id random(1, {account_count(SCALE)})\n{STATEMENT}")
        script.flush()
        command = [
            *(pgbench_program(), "-n", "-M", "prepared", "-f", script.name, "-P", "1"),
            *("-c", str(connections), "-j", str(len(os.sched_getaffinity(0))), "-T", str(seconds)),
            *("-h", parameters["host"], "-p", str(parameters["port"]), "-U", parameters["user"]),
            parameters["dbname"],
        ]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            yield process
        finally:
            process.terminate()
            process.wait()


class Observer:
    """Ask as often as a recorder does, and count the CPU time of it."""

    def __init__(self, target: PostgresTarget, server: EmbeddedServer) -> None:
        self._target = target
        with psycopg.connect(server.dsn) as connection:
            backends = [psutil.Process(pid) for (pid,) in connection.execute(COLLECTORS)]
        self._processes = [psutil.Process(), *backends]
        self.cpu_seconds, self.seconds = 0.0, 0

    def observe(self) -> None:
        """Ask what one second is asked for."""
        before = self._cpu()
        if self.seconds % SNAPSHOT_INTERVAL_SECONDS == 0:
            self._target.snapshot()
        self._target.activity()
        self.cpu_seconds += self._cpu() - before
        self.seconds += 1

    def _cpu(self) -> float:
        times = [process.cpu_times() for process in self._processes]
        return sum(each.user + each.system for each in times)


def stretch(running: subprocess.Popen[str], observer: Observer | None) -> float:
    """Return operations per second of one stretch, observed or not."""
    rates = []
    for _ in range(STRETCH_SECONDS):
        if observer is not None:
            observer.observe()
        rates.append(next_second(running))
    return statistics.mean(rates)


def compare(server: EmbeddedServer, connections: int, pairs: int) -> dict[str, object]:
    """Run observed and unobserved stretches of one load in turns."""
    rates: dict[bool, list[float]] = {True: [], False: []}
    coin = random.Random(0)
    with (
        PostgresTarget.open(resolve_connection(server.dsn, {})) as target,
        load(server, connections, WARM_UP_SECONDS + 2 * pairs * STRETCH_SECONDS + 10) as running,
    ):
        observer = Observer(target, server)
        for _ in range(WARM_UP_SECONDS):
            next_second(running)
        for _ in range(pairs):
            for observed in coin.sample((True, False), 2):
                rates[observed].append(stretch(running, observer if observed else None))
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
        "seconds": STRETCH_SECONDS,
        "cpu_share": observer.cpu_seconds / observer.seconds / len(os.sched_getaffinity(0)),
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
        f"CPU of collecting  {row['cpu_share']:>9.2%}   of all cores"
    )


def main() -> None:
    """Start a server, measure, store and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=150, help="stretches with, and as many without")
    parser.add_argument("--connections", type=int, default=8, help="of the load")
    parser.add_argument("--pg-bin", type=Path, default=None, help="folder of PostgreSQL's programs")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="genesis-benchmark-") as folder:
        Path(folder).chmod(0o755)
        with start(Path(folder), arguments.pg_bin) as server:
            row = compare(server, arguments.connections, arguments.pairs)
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
    run_benchmark(main)
