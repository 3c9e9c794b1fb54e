"""What it costs that somebody stands by during a trial.

A watchdog and a guard session stand by for a change of three knobs, again and again: how long it takes until both do
(before a trial may begin), and until both are sent home; once for each run, how long the first takes, which starts
the watchdog's process. Then they stand by for a while, in which their CPU time is measured.

    python benchmarks/protection_cost.py --times 100 --seconds 30
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil
from faults import own_server  # beside this file
from running import run_benchmark

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "postgres"))

from guarded_trial import duty_on, lease_on  # noqa: E402  (its folder is no package)

from ml_postgres_optimization.safety.journal import Journal, KnobChange  # noqa: E402
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings  # noqa: E402
from ml_postgres_optimization.target.postgres.lock import optimizer_lock  # noqa: E402
from ml_postgres_optimization.target.postgres.server import PostgresTarget  # noqa: E402

RESULT = Path(__file__).resolve().parent / "results" / "protection_cost.json"
KNOBS = (
    KnobChange("work_mem", None, 4096, 16384),
    KnobChange("jit", None, True, False),
    KnobChange("random_page_cost", None, 4.0, 1.1),
)
LEASE_SECONDS = 30.0
ASKED = "SELECT pid FROM pg_stat_activity WHERE application_name ~ 'genesis-pg: guard [0-9a-f]+$'"


def timed(work, *arguments) -> float:
    """Return the seconds that it takes."""
    began = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - began


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def measure(dsn: str, directory: Path, times: int, seconds: float) -> dict[str, object]:
    """Let them stand by, again and again, and then for a while."""
    settings = ConnectionSettings.from_dsn(dsn)
    with (
        PostgresTarget.open(settings) as target,
        optimizer_lock(target.changing),
        Journal(directory),
        lease_on(target, duty_on(target, directory, LEASE_SECONDS, None)) as lease,
    ):
        first_seconds = timed(lease.arm, KNOBS, 600.0)
        lease.disarm()
        arming, disarming = [], []
        for _ in range(times):
            arming.append(timed(lease.arm, KNOBS, 600.0))
            disarming.append(timed(lease.disarm))
        terms = lease.arm(KNOBS, 600.0)
        guard = int(target.changing.run(lambda connection: connection.execute(ASKED).fetchone()[0], "look"))
        before = cpu_seconds(guard)
        time.sleep(seconds)
        used = cpu_seconds(guard) - before
    return {
        "by": list(terms.by),
        "first_seconds": first_seconds,
        "arming_seconds": arming,
        "disarming_seconds": disarming,
        "guard_session_cores": used / seconds if seconds else None,
    }


def main() -> None:
    """Measure, store and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=30.0)
    arguments = parser.parse_args()
    with own_server() as server, tempfile.TemporaryDirectory() as folder:
        figures = measure(server.dsn, Path(folder) / "journal", arguments.times, arguments.seconds)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(f"stand by: {', '.join(figures['by'])}; once a run, the first time: {figures['first_seconds']:.2f} s")
    for name in ("arming", "disarming"):
        each = [1000 * seconds for seconds in figures[f"{name}_seconds"]]
        print(f"{name}: median {statistics.median(each):.1f} ms, longest {max(each):.1f} ms, of {len(each)}")
    print(f"guard session: {figures['guard_session_cores']:.2%} of a core")


if __name__ == "__main__":
    run_benchmark(main)
