"""A stall of 500 ms injected under an open loop: is the reported p99 the truth?

Updates of one row come at a steady Poisson rate; in the middle somebody holds that row's lock for 500 ms. The truth
is computed without the generator: the schedule is drawn again from its seed, and every operation is put through a
queue with one server (a row is updated by one at a time) whose service time is the reciprocal of the capacity
measured beforehand, and which stands still while the lock is held. Beside it stands what a tool would report that
starts its clock when it sends, and so forgets those that it did not send.

    python benchmarks/stall.py --pairs 3 --seconds 14
"""

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path

import numpy as np
from running import run_benchmark

from ml_postgres_optimization.target.embedded import EmbeddedServer, find_binaries
from ml_postgres_optimization.telemetry import Histogram
from ml_postgres_optimization.workload import (
    LoadGenerator,
    LoadPlan,
    OperationKind,
    OperationMix,
    create_tables,
    measure_capacity,
)
from ml_postgres_optimization.workload.arrival import INTERVAL_SECONDS, Stream, ZipfKeys
from ml_postgres_optimization.workload.faults import Stall, hold_row_lock

RESULT = Path(__file__).resolve().parent / "results" / "stall.json"
STALL_SECONDS = 0.5
RATE_PER_SECOND = 200.0
CONNECTIONS = 8
THE_ROW = 1
GOAL_ERROR_RATIO = 0.05
UPDATES = OperationMix({OperationKind.UPDATE: 1})


def schedule(plan: LoadPlan, started_at_seconds: float, until_seconds: float) -> np.ndarray:
    """Draw the due times again: those up to `until_seconds`, of the only client process."""
    stream = Stream(plan.seed, 0, ZipfKeys(THE_ROW, plan.zipf_exponent))
    intervals = int((until_seconds - started_at_seconds) / INTERVAL_SECONDS) + 1
    due = [stream.interval(number, plan.rate_per_second, plan.mix)[0] for number in range(intervals)]
    due_seconds = started_at_seconds + np.concatenate(due)
    return due_seconds[due_seconds <= until_seconds]


def true_responses(due_seconds: np.ndarray, stall: Stall, service_seconds: float) -> np.ndarray:
    """Return what every operation has to wait: first come, first served, and nobody while the lock is held."""
    free_at, responses = 0.0, []
    for due in due_seconds.tolist():
        start = max(due, free_at)
        if stall.began_seconds <= start < stall.ended_seconds:
            start = stall.ended_seconds
        free_at = start + service_seconds
        responses.append(free_at - due)
    return np.array(responses)


def run(server: EmbeddedServer, seed: int, seconds: float) -> dict[str, float]:
    """Load, stall, and compare."""
    plan = LoadPlan(
        UPDATES,
        rate_per_second=RATE_PER_SECOND,
        connections=CONNECTIONS,
        clients=CONNECTIONS,
        key_count=THE_ROW,
        processes=1,
        seed=seed,
    )
    capacity = measure_capacity(server.dsn, plan, 1.5)
    with LoadGenerator(server.dsn, plan) as load:
        time.sleep(seconds / 2)
        stall = hold_row_lock(server.dsn, THE_ROW, STALL_SECONDS)
        time.sleep(max(0.0, load.started_at_seconds + seconds - time.monotonic()))
        until, cpu_ratio = time.monotonic(), load.cpu_ratio_since(load.started_at_seconds)
    batches = load.samples()
    intended, start, end = (
        np.concatenate([getattr(batch, name) for batch in batches])
        for name in ("intended_start_seconds", "start_seconds", "end_seconds")
    )
    counted = intended <= until
    truth = true_responses(schedule(plan, load.started_at_seconds, until), stall, 1.0 / capacity)
    reported = Histogram.of((end - intended)[counted]).quantile_seconds(0.99)
    true_p99 = float(np.quantile(truth, 0.99, method="inverted_cdf"))
    return {
        "seed": seed,
        "operations": int(counted.sum()),
        "operations_of_the_schedule": len(truth),
        "reported_p99_seconds": reported,
        "true_p99_seconds": true_p99,
        "error_ratio": reported / true_p99 - 1.0,
        "from_send_p99_seconds": Histogram.of((end - start)[counted]).quantile_seconds(0.99),
        "stall_seconds": stall.ended_seconds - stall.began_seconds,
        "capacity_per_second": capacity,
        "cpu_ratio": cpu_ratio,
    }


def show(runs: list[dict[str, float]]) -> None:
    """Print the table."""
    print(f"{'run':>3} {'operations':>10} {'true p99':>10} {'reported':>10} {'error':>7} {'timed from the send':>20}")
    for number, row in enumerate(runs, start=1):
        times = [f"{1e3 * row[name]:.1f} ms" for name in ("true_p99_seconds", "reported_p99_seconds")]
        print(
            f"{number:>3} {row['operations']:>10} {times[0]:>10} {times[1]:>10} {row['error_ratio']:>+7.1%}"
            f" {1e3 * row['from_send_p99_seconds']:>17.1f} ms"
        )
    worst = max(abs(row["error_ratio"]) for row in runs)
    met = "met" if worst <= GOAL_ERROR_RATIO else "MISSED"
    print(f"largest error {worst:.1%}, goal {GOAL_ERROR_RATIO:.0%}: {met}")


def main() -> None:
    """Start a server, measure, store and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3, help="runs, each with its truth")
    parser.add_argument("--seconds", type=float, default=14.0, help="length of a run; at least 5")
    parser.add_argument("--pg-bin", type=Path, default=None, help="folder of PostgreSQL's programs")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="genesis-benchmark-") as folder:
        Path(folder).chmod(0o755)
        with EmbeddedServer.start(
            Path(folder) / "home",
            binaries=find_binaries(arguments.pg_bin),
            # the measuring is tested here, not the disk: with a flush for each update of the row, the queue of 100
            # that the stall leaves would take longer to work off than the stall itself
            settings={"synchronous_commit": "off"},
            system_state=Path(folder) / "system",
        ) as server:
            create_tables(server.dsn, 0.01)
            runs = [run(server, seed, max(5.0, arguments.seconds)) for seed in range(arguments.pairs)]
            result = {
                "server_version_num": server.version_num,
                "cores": len(os.sched_getaffinity(0)),
                "python": platform.python_version(),
                "load_average_at_end": os.getloadavg()[0],
                "runs": runs,
            }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    show(runs)


if __name__ == "__main__":
    run_benchmark(main)
