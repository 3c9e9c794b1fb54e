"""Cut connections around their COMMIT, and see whether each operation was done exactly once.

Operations are numbered; each is a transaction that writes its number, retried by `ml_postgres_optimization.retry`,
through a line that is cut around a share of the COMMITs: before it is sent on, when it is sent on, or when it was
answered and the answer is thrown away, drawn by lot. In the end the table is compared with what the callers were
told: what was acknowledged has to be there once, what failed not at all, and what is unknown is counted.

    python benchmarks/lost_commits.py --cuts 200
"""

import argparse
import json
import tempfile
from collections import Counter
from pathlib import Path

import psycopg
from running import run_benchmark

from ml_postgres_optimization.errors import CommitUnknown
from ml_postgres_optimization.retry import Pause, RetryBudget, RetryingCaller, RetryPolicy, transaction
from ml_postgres_optimization.target.embedded import EmbeddedServer, find_binaries
from ml_postgres_optimization.workload.faults import CommitCut, FaultProxy

RESULT = Path(__file__).resolve().parent / "results" / "lost_commits.json"
CUT_RATIO = 0.5


def write(dsn: str, number: int) -> None:
    """Do the operation."""
    with psycopg.connect(dsn) as connection, transaction(connection):
        connection.execute("INSERT INTO operations VALUES (%s)", [number])


def told(caller: RetryingCaller, dsn: str, number: int) -> str:
    """Do the operation, and return what its caller is told."""
    try:
        caller.call(write, dsn, number)
    except CommitUnknown:
        return "unknown"
    except psycopg.Error:
        return "failed"
    return "acknowledged"


def measure(dsn: str, cuts: int) -> dict[str, object]:
    """Do operations until so many connections were cut."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE operations (number int)")
    policy = RetryPolicy(attempts=10, reconnect=Pause(0.001, 0.01))
    caller = RetryingCaller(policy, budget=RetryBudget(ratio=1.0, reserve=1000))
    words: dict[int, str] = {}
    with FaultProxy(dsn, seed=1) as line, line.cutting_commits(CUT_RATIO, *CommitCut, most=cuts):
        while sum(line.cuts.values()) < cuts:
            words[len(words)] = told(caller, line.dsn, len(words))
        by_way = {way.value: count for way, count in line.cuts.items()}
    with psycopg.connect(dsn) as connection:
        rows = Counter(number for (number,) in connection.execute("SELECT number FROM operations"))
    return {
        "operations": len(words),
        "cuts": by_way,
        "told": dict(Counter(words.values())),
        "lost": sum(word == "acknowledged" and rows[number] == 0 for number, word in words.items()),
        "applied_twice": sum(count > 1 for count in rows.values()),
        "failed_but_applied": sum(word == "failed" and rows[number] > 0 for number, word in words.items()),
    }


def main() -> None:
    """Measure, store and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuts", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="genesis-benchmark-") as folder:
        Path(folder).chmod(0o755)
        with EmbeddedServer.start(Path(folder) / "server", binaries=find_binaries(None)) as server:
            figures = measure(server.dsn, arguments.cuts)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    for name, value in figures.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    run_benchmark(main)
