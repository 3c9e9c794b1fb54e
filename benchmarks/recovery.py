"""How fast does a server of ours replay WAL after a crash? The bound of max_wal_size by a recovery time stands on it.

Our own load runs on the embedded server, with a max_wal_size that forces no checkpoint; then PostgreSQL is killed
(-9) and started again. The WAL since the last checkpoint's redo point, divided by the time of that start less that of
a restart with nothing to replay, is the rate. Full-page images (the default) are in it.

    python benchmarks/recovery.py --pairs 5 --seconds 60 --scale 10
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import psycopg
from running import run_benchmark

from ml_postgres_optimization.target.embedded import EmbeddedServer, find_binaries
from ml_postgres_optimization.workload import LEVELS, LoadGenerator, LoadPlan, create_tables

RESULT = Path(__file__).resolve().parent / "results" / "recovery.json"
CONNECTIONS = 8
SETTINGS = {"max_wal_size": "64GB", "checkpoint_timeout": "1h", "shared_buffers": "1GB"}
WAL_SINCE_REDO = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), redo_lsn)::float8 FROM pg_control_checkpoint()"


def asked(server: EmbeddedServer, statement: str) -> float:
    """Return the one number that a statement gives."""
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        row = connection.execute(statement).fetchone()  # type: ignore[arg-type]
        return float(row[0]) if row else 0.0


def started(server: EmbeddedServer) -> float:
    """Start a server, stop it first where it runs, and return how many seconds passed until it answered."""
    began = time.monotonic()
    server.restart()
    asked(server, "SELECT 1")
    return time.monotonic() - began


def checkpoint(server: EmbeddedServer) -> None:
    """Leave nothing to replay."""
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("CHECKPOINT")


def crash(server: EmbeddedServer, seconds: float, seed: int) -> dict[str, float]:
    """Load, kill, start; then start once more with nothing to replay."""
    checkpoint(server)
    mix = LEVELS["HIGH"].mix
    with LoadGenerator(server.dsn, LoadPlan(mix, connections=CONNECTIONS, clients=CONNECTIONS, seed=seed)):
        time.sleep(seconds)
        wal_bytes = asked(server, WAL_SINCE_REDO)
        server.kill()
    crashed_seconds = started(server)
    checkpoint(server)
    clean_seconds = started(server)
    recovery_seconds = max(crashed_seconds - clean_seconds, 0.01)
    return {
        "wal_bytes": wal_bytes,
        "recovery_seconds": recovery_seconds,
        "clean_start_seconds": clean_seconds,
        "mib_per_second": wal_bytes / 2**20 / recovery_seconds,
    }


def main() -> None:
    """Crash as often as asked, store and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5, help="a crash and a clean stop each")
    parser.add_argument("--seconds", type=float, default=60, help="of load before each crash")
    parser.add_argument("--scale", type=float, default=10, help="of our tables: 1 is about 100 MB")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedServer.start(Path(folder), binaries=find_binaries(None), settings=SETTINGS) as server,
    ):
        create_tables(server.dsn, arguments.scale)
        runs = [crash(server, arguments.seconds, seed) for seed in range(arguments.pairs)]
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({"runs": runs}, indent=2) + "\n", encoding="utf-8")
    for run in runs:
        print(
            f"{run['wal_bytes'] / 2**20:8,.0f} MB of WAL in {run['recovery_seconds']:6.2f} s: "
            f"{run['mib_per_second']:6.0f} MB/s (clean start {run['clean_start_seconds']:.2f} s)"
        )
    rates = [run["mib_per_second"] for run in runs]
    print(f"median {statistics.median(rates):.0f} MB/s, from {min(rates):.0f} to {max(rates):.0f}")


if __name__ == "__main__":
    run_benchmark(main)
