"""What the extended test costs: bytes and processor time of recording, and the ledger's share of the load.

A real ``test`` runs with its intervals of 10 seconds; bytes are those that the journal grew by, processor time that
of the runner's own process, without the load's clients, from the first interval's record to the last: all of it, and
that of its first thread, which records; the other one hears the load's clients. For the ledger, stretches of a closed
loop with and without it take turns, A B B A; the ratio is that of the two pairs of a round, and so are the
differences in processor time for each operation, of the server's processes and of the load's. Processor time suffers
less from a busy machine than rates do, but is longer there, too: how busy it was is said.

    python benchmarks/soak_cost.py --minutes 2 --rounds 4
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import psutil
from running import run_benchmark

from ml_postgres_optimization.soak.journal import FILE
from ml_postgres_optimization.target.embedded import EmbeddedServer, find_binaries
from ml_postgres_optimization.workload import SOAK_MIX, LoadGenerator, LoadPlan, create_tables
from ml_postgres_optimization.workload.accounting import Ledger

RESULT = Path(__file__).resolve().parent / "results" / "soak_cost.json"
ROOT = Path(__file__).resolve().parents[1]
INTERVALS_IN_72_HOURS = 72 * 360
GOAL_BYTES = 200e6
GOAL_CORE_RATIO = 0.01
PATIENCE_SECONDS = 120.0
# Before a stretch is measured: sessions plan their statements, and the server learns them.
SETTLE_SECONDS = 0.5
GENESIS_PG = "from ml_postgres_optimization.interfaces.cli import main; main()"


def started(server: EmbeddedServer, home: Path, interval_seconds: float, *words: str) -> subprocess.Popen[bytes]:
    """Start a command of ours on the server."""
    names = ("PG", "POSTGRES_", "GENESIS_")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(names)}
    environ |= {"GENESIS_HOME": str(home), "GENESIS_WINDOW_SECONDS": str(interval_seconds), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", GENESIS_PG, *words, "--dsn", server.dsn], env=environ, stdout=subprocess.DEVNULL
    )


def journal_bytes(home: Path) -> int:
    """Return the journal's length; 0 before there is one."""
    path = next(iter(home.glob(f"servers/*/soaks/*/{FILE}")), None)
    return path.stat().st_size if path else 0


def next_record(runner: subprocess.Popen[bytes], home: Path, least_bytes: int) -> int:
    """Wait until the journal has grown by so much at least, and return its length."""
    before, deadline = journal_bytes(home), time.monotonic() + PATIENCE_SECONDS
    while (now := journal_bytes(home)) < before + least_bytes:
        if runner.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the runner ended with {runner.returncode}, or recorded nothing")
        time.sleep(0.02)
    return now


def recording(server: EmbeddedServer, home: Path, interval_seconds: float, intervals: int) -> dict[str, float]:
    """Run a test, and look at its journal and its own processor time at each record."""
    if started(server, home, interval_seconds, "setup").wait() != 0:
        raise RuntimeError("the schema cannot be set up")
    runner = started(
        *(
            server,
            home,
            interval_seconds,
            "test",
            "--simulate",
            "--duration",
            "1",
            "--level",
            "HIGH",
            "--scale",
            "0.1",
        )
    )
    process = psutil.Process(runner.pid)
    seen = []
    psutil.cpu_percent()
    # an interval takes some kilobytes; what a runner says when it begins, some hundred bytes
    for _ in range(intervals + 1):
        length = next_record(runner, home, 1_000)
        seen.append((time.monotonic(), length, cpu_seconds([process]), first_thread_seconds(process)))
    rss_bytes, busy_ratio = process.memory_info().rss, psutil.cpu_percent() / 100
    runner.send_signal(signal.SIGINT)
    runner.wait(PATIENCE_SECONDS)
    (began, bytes_before, cpu_before, first_before), (ended, bytes_after, cpu_after, first_after) = seen[0], seen[-1]
    return {
        "intervals": intervals,
        "interval_seconds": interval_seconds,
        "bytes_per_interval": (bytes_after - bytes_before) / intervals,
        "largest_interval_bytes": max(b[1] - a[1] for a, b in pairwise(seen)),
        "core_ratio": growth(cpu_before, cpu_after) / (ended - began),
        "recording_core_ratio": (first_after - first_before) / (ended - began),
        "machine_busy_ratio": busy_ratio,
        "rss_bytes": rss_bytes,
    }


def cpu_seconds(processes: list[psutil.Process]) -> dict[int, float]:
    """Return what those of them that live have used so far, by process id."""
    used = {}
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # a worker of autovacuum has ended
            used[process.pid] = sum(process.cpu_times()[:2])
    return used


def growth(before: dict[int, float], after: dict[int, float]) -> float:
    """Return what those that live at both times have used between."""
    return sum(after[process] - before[process] for process in before.keys() & after.keys())


def first_thread_seconds(process: psutil.Process) -> float:
    """Return what its first thread has used so far."""
    return next(one.user_time + one.system_time for one in process.threads() if one.id == process.pid)


def stretch(server: EmbeddedServer, plan: LoadPlan, seconds: float) -> tuple[float, float, float]:
    """Return operations per second, and the processor time of each in the server and in the load's processes."""
    postmaster = int((server.data_directory / "postmaster.pid").read_text().split()[0])
    with LoadGenerator(server.dsn, plan) as load:
        time.sleep(SETTLE_SECONDS)
        sides = [psutil.Process(postmaster).children(), [psutil.Process(pid) for pid in load.process_ids]]
        began, before, done = time.monotonic(), [cpu_seconds(side) for side in sides], load.counters.succeeded_total
        time.sleep(seconds)
        done = max(1, load.counters.succeeded_total - done)
        used = [growth(spent, cpu_seconds(side)) for side, spent in zip(sides, before, strict=True)]
        return done / (time.monotonic() - began), used[0] / done, used[1] / done


def ledger_cost(server: EmbeddedServer, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Compare stretches with and without the ledger, A B B A: rates, and processor time for each operation."""
    plan = LoadPlan(SOAK_MIX, connections=8, clients=8, seed=5)
    cost: dict[str, list[float]] = {"ledger_ratios": [], "ledger_server_seconds": [], "ledger_client_seconds": []}
    with Ledger(server.dsn, "cost") as ledger:
        with_it = replace(plan, ledger=("cost", ledger.take(0, is_new=True)))
        for round_number in range(rounds):
            order = (with_it, plan, plan, with_it) if round_number % 2 else (plan, with_it, with_it, plan)
            found = [(each is with_it, stretch(server, each, seconds)) for each in order]
            have, lack = ([figures for has, figures in found if has is it] for it in (True, False))
            cost["ledger_ratios"].append(sum(one[0] for one in have) / sum(one[0] for one in lack))
            for place, name in ((1, "ledger_server_seconds"), (2, "ledger_client_seconds")):
                cost[name].append(sum(one[place] for one in have) / 2 - sum(one[place] for one in lack) / 2)
    return cost


def main() -> None:
    """Measure, store and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=2.0, help="of the test")
    parser.add_argument("--interval-seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=4, help="of four stretches, for the ledger")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a stretch")
    arguments = parser.parse_args()
    intervals = max(1, round(arguments.minutes * 60 / arguments.interval_seconds))
    with tempfile.TemporaryDirectory(prefix="genesis-benchmark-") as folder:
        Path(folder).chmod(0o755)
        home = Path(folder) / "home"
        home.mkdir()
        with EmbeddedServer.start(
            Path(folder) / "server", binaries=find_binaries(None), system_state=Path(folder) / "system"
        ) as server:
            create_tables(server.dsn, 0.1)
            cost = ledger_cost(server, arguments.rounds, arguments.seconds)
            record = recording(server, home, arguments.interval_seconds, intervals)
    result = {
        **record,
        "bytes_in_72_hours": record["bytes_per_interval"] * INTERVALS_IN_72_HOURS,
        **cost,
        "cores": len(os.sched_getaffinity(0)),
        "load_average_at_end": os.getloadavg()[0],
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    show(result)


def show(result: dict[str, object]) -> None:
    """Print what came out."""
    in_72_hours = result["bytes_in_72_hours"]
    small = "met" if in_72_hours <= GOAL_BYTES else "MISSED"
    light = "met" if result["core_ratio"] <= GOAL_CORE_RATIO else "MISSED"
    ratios = result["ledger_ratios"]
    of_server, of_client = (
        statistics.median(result[name]) * 1e6 for name in ("ledger_server_seconds", "ledger_client_seconds")
    )
    print(
        f"{result['bytes_per_interval']:,.0f} bytes for each of {result['intervals']} intervals of "
        f"{result['interval_seconds']:g} s, {in_72_hours / 1e6:.0f} MB in 72 h of 10 s "
        f"(at most {GOAL_BYTES / 1e6:.0f} MB: {small})\n"
        f"{result['core_ratio']:.2%} of a core in the runner's own process (at most {GOAL_CORE_RATIO:.0%}: {light}), "
        f"{result['recording_core_ratio']:.2%} of it for recording, the rest for hearing the load; "
        f"{result['rss_bytes'] / 1e6:.0f} MB; the machine was {result['machine_busy_ratio']:.0%} busy\n"
        f"load with the ledger over without: {statistics.median(ratios):.3f}, from {min(ratios):.3f} to "
        f"{max(ratios):.3f}, {len(ratios)} rounds A B B A; "
        f"processor time for each operation {of_server:+.0f} us in the server, {of_client:+.0f} us in the client"
    )


if __name__ == "__main__":
    run_benchmark(main)
