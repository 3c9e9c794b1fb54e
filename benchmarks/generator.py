"""Our load generator against pgbench, and the lag of its scheduler.

Single-row select by primary key, prepared, closed loop, keys drawn evenly; same server, same number of connections,
as many processes of ours as pgbench has threads: one for each core.
Blocks run in the order A B B A (ours, pgbench, pgbench, ours), so that a drift of the machine hits both; each such
round gives two ratios. The interval is that of the sign test: distribution-free, for the median. Beside it stands
the CPU time for one operation, client and server together, which a busy machine distorts less than throughput.

    python benchmarks/generator.py --pairs 6 --seconds 3
"""

import argparse
import json
import math
import os
import platform
import re
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from psycopg.conninfo import conninfo_to_dict
from running import run_benchmark

from ml_postgres_optimization.target.embedded import EmbeddedServer, all_binaries, find_binaries
from ml_postgres_optimization.workload import (
    SOAK_MIX,
    LoadGenerator,
    LoadPlan,
    OperationKind,
    OperationMix,
    create_tables,
)
from ml_postgres_optimization.workload.tables import account_count

RESULT = Path(__file__).resolve().parent / "results" / "generator.json"
CONNECTIONS = (8, 32)
SCALE = 0.2
RATE_PER_SECOND = 3_000.0
GOAL_RATIO = 0.5
GOAL_LAG_SECONDS = 0.0015
READS = OperationMix({OperationKind.READ: 1})


@dataclass(frozen=True)
class Block:
    """What one of the two did in one block."""

    per_second: float
    operations: int
    client_cpu_seconds: float


def pgbench_program() -> Path:
    """Return pgbench of the newest PostgreSQL that has it."""
    programs = (binaries.program("pgbench") for binaries in all_binaries())
    found = next((program for program in programs if program.exists()), None)
    if found is None:
        raise SystemExit("pgbench is needed to compare with; Debian has it in postgresql-client")
    return found


def pgbench(server: EmbeddedServer, connections: int, seconds: float) -> Block:
    """Let pgbench send the very statement that our generator sends."""
    parameters = conninfo_to_dict(server.dsn)
    before = children_cpu_seconds()
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(f"\\set id random(1, {account_count(SCALE)})\n")
        script.write(
            "SELECT account_id, balance, updates_total, filler FROM genesis_load.accounts WHERE account_id = :id;\n"
        )
        script.flush()
        threads = min(connections, len(os.sched_getaffinity(0)))
        output = subprocess.run(
            [
                *(pgbench_program(), "-n", "-M", "prepared", "-f", script.name),
                *("-c", str(connections), "-j", str(threads), "-T", str(max(1, math.ceil(seconds)))),
                *("-h", parameters["host"], "-p", str(parameters["port"]), "-U", parameters["user"]),
                parameters["dbname"],
            ],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    return Block(
        float(re.search(r"tps = ([0-9.]+) \(without initial", output)[1]),
        int(re.search(r"actually processed: (\d+)", output)[1]),
        children_cpu_seconds() - before,
    )


def ours(server: EmbeddedServer, connections: int, seconds: float) -> Block:
    """Let our generator do the same."""
    plan = LoadPlan(READS, connections=connections, clients=connections, zipf_exponent=0.0)
    with LoadGenerator(server.dsn, plan) as load:
        time.sleep(seconds)
        until = time.monotonic()
        elapsed = until - load.started_at_seconds
        cpu_seconds = load.cpu_ratio_since(load.started_at_seconds) * elapsed * len(load.process_ids)
    ended = np.concatenate([batch.end_seconds for batch in load.samples()])
    return Block(np.count_nonzero(ended < until) / elapsed, len(ended), cpu_seconds)


def children_cpu_seconds() -> float:
    """Return the CPU time of the processes of ours that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def backends_cpu_seconds(server: EmbeddedServer) -> float:
    """Return the CPU time of the backends that have ended."""
    pid = int((server.data_directory / "postmaster.pid").read_text().split()[0])
    times = psutil.Process(pid).cpu_times()
    return times.children_user + times.children_system


def measured(
    run: Callable[[EmbeddedServer, int, float], Block], server: EmbeddedServer, connections: int, seconds: float
) -> tuple[float, float]:
    """Run a block, and return operations per second and CPU seconds per operation."""
    before = backends_cpu_seconds(server)
    block = run(server, connections, seconds)
    time.sleep(0.2)  # until the backends have ended, so that their time is counted
    cpu_seconds = block.client_cpu_seconds + backends_cpu_seconds(server) - before
    return block.per_second, cpu_seconds / block.operations


def compare(server: EmbeddedServer, connections: int, pairs: int, seconds: float) -> dict[str, object]:
    """Run the two interleaved."""
    rates: dict[str, list[float]] = {"ours": [], "pgbench": []}
    costs: dict[str, list[float]] = {"ours": [], "pgbench": []}
    for number in range(pairs):
        for run in (ours, pgbench) if number % 2 == 0 else (pgbench, ours):
            rate, cost = measured(run, server, connections, seconds)
            rates[run.__name__].append(rate)
            costs[run.__name__].append(cost)
    ratios = [mine / theirs for mine, theirs in zip(rates["ours"], rates["pgbench"], strict=True)]
    low, high, coverage = median_interval(ratios)
    return {
        "connections": connections,
        "ours_per_second": statistics.median(rates["ours"]),
        "pgbench_per_second": statistics.median(rates["pgbench"]),
        "ratio": statistics.median(ratios),
        "ratio_low": low,
        "ratio_high": high,
        "interval_coverage": coverage,
        "ours_cpu_seconds_per_operation": statistics.median(costs["ours"]),
        "pgbench_cpu_seconds_per_operation": statistics.median(costs["pgbench"]),
        "pairs": pairs,
    }


def median_interval(values: list[float], level: float = 0.95) -> tuple[float, float, float]:
    """Return the sign test's interval for the median, and what it covers (less than `level` for few values)."""
    ordered, count = sorted(values), len(values)
    below = 0
    while below + 1 < count / 2 and coverage_of(count, below + 1) >= level:
        below += 1
    return ordered[below], ordered[count - 1 - below], coverage_of(count, below)


def coverage_of(count: int, below: int) -> float:
    """Return the probability that the median lies between the values number `below` from either end."""
    return 1 - 2 * sum(math.comb(count, k) for k in range(below + 1)) / 2**count


def scheduler_lag(server: EmbeddedServer, processes: int, seconds: float) -> dict[str, object]:
    """Return how late the scheduler was at 3,000 operations per second."""
    plan = LoadPlan(SOAK_MIX, rate_per_second=RATE_PER_SECOND, connections=8, processes=processes)
    with LoadGenerator(server.dsn, plan) as load:
        time.sleep(1.0)
        load.samples()
        time.sleep(seconds)
        batches, cpu_ratio = load.samples(), load.cpu_ratio_since(time.monotonic() - seconds)
    lag = np.concatenate([batch.lag_seconds for batch in batches])
    return {
        "processes": processes,
        "rate_per_second": RATE_PER_SECOND,
        "operations": len(lag),
        "lag_p50_seconds": float(np.quantile(lag, 0.50)),
        "lag_p99_seconds": float(np.quantile(lag, 0.99)),
        "lag_p999_seconds": float(np.quantile(lag, 0.999)),
        "cpu_ratio": cpu_ratio,
    }


def show(comparisons: list[dict[str, object]], lags: list[dict[str, object]]) -> None:
    """Print both tables."""
    head = (
        f"{'connections':>11} {'ours/s':>9} {'pgbench/s':>10} {'ratio':>6} {'interval':>14} {'CPU per operation':>22}"
    )
    print(f"{head}  goal ≥ {GOAL_RATIO}")
    for row in comparisons:
        interval = f"{row['ratio_low']:.2f} … {row['ratio_high']:.2f}"
        costs = [f"{1e6 * row[f'{name}_cpu_seconds_per_operation']:.0f} µs" for name in ("ours", "pgbench")]
        met = "met" if row["ratio"] >= GOAL_RATIO else "MISSED"
        print(
            f"{row['connections']:>11} {row['ours_per_second']:>9,.0f} {row['pgbench_per_second']:>10,.0f}"
            f" {row['ratio']:>6.2f} {interval:>14} {' against '.join(costs):>22}"
            f"  {met} ({row['interval_coverage']:.0%} interval)"
        )
    print(f"\n{'processes':>11} {'lag p50':>9} {'p99':>9} {'p99.9':>9} {'CPU':>6}  goal p99 ≤ 1.5 ms at 3,000/s")
    for row in lags:
        times = " ".join(f"{1e3 * row[f'lag_{name}_seconds']:>6.3f} ms" for name in ("p50", "p99", "p999"))
        met = "met" if row["lag_p99_seconds"] <= GOAL_LAG_SECONDS else "MISSED"
        print(f"{row['processes']:>11} {times} {row['cpu_ratio']:>6.0%}  {met}")


def main() -> None:
    """Start a server, measure, store and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=6, help="blocks of each, for each number of connections")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a block")
    parser.add_argument("--pg-bin", type=Path, default=None, help="folder of PostgreSQL's programs")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="genesis-benchmark-") as folder:
        Path(folder).chmod(0o755)
        with EmbeddedServer.start(
            Path(folder) / "home", binaries=find_binaries(arguments.pg_bin), system_state=Path(folder) / "system"
        ) as server:
            create_tables(server.dsn, SCALE)
            comparisons = [compare(server, count, arguments.pairs, arguments.seconds) for count in CONNECTIONS]
            lags = [scheduler_lag(server, processes, arguments.seconds) for processes in (1, 2)]
            result = {
                "server_version_num": server.version_num,
                "cores": len(os.sched_getaffinity(0)),
                "python": platform.python_version(),
                "load_average_at_end": os.getloadavg()[0],
                "throughput": comparisons,
                "scheduler": lags,
            }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    show(comparisons, lags)


if __name__ == "__main__":
    run_benchmark(main)
