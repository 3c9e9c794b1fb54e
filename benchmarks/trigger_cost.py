"""What `genesis.watch_table` costs the statements that it watches.

The same closed loop (single-row insert, prepared, one transaction each, with the server's default durability) on two
tables that are alike, of which one is watched. Both take turns of a tenth of a second in the order A B B A (watched,
plain, plain, watched), on the same connections, so that a drift of the machine hits both; both are emptied before
each pair of blocks. The interval is that of the sign test: distribution-free, for the median.

    python benchmarks/trigger_cost.py --pairs 6 --seconds 3
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import psycopg
from generator import median_interval
from running import run_benchmark

from ml_postgres_optimization.target.embedded import EmbeddedServer, find_binaries
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings, connect
from ml_postgres_optimization.target.postgres.schema import install_schema

RESULT = Path(__file__).resolve().parent / "results" / "trigger_cost.json"
CONNECTIONS = (1, 8)
GOAL_RATIO = 0.85
TURN_SECONDS = 0.1
TABLES = ("watched", "plain")
INSERT = "INSERT INTO trigger_cost.{table} (account_id, amount, note) VALUES (1, 100, 'a note of a usual length')"
MAKE_TABLES = "; ".join(
    f"CREATE TABLE trigger_cost.{table} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "
    "account_id integer NOT NULL, amount integer NOT NULL, note text NOT NULL, at timestamptz NOT NULL DEFAULT now())"
    for table in TABLES
)


class Clients:
    """As many closed loops as connections, which insert when told to, and into what they are told."""

    def __init__(self, dsn: str, count: int) -> None:
        self._connections = [psycopg.connect(dsn, autocommit=True, prepare_threshold=0) for _ in range(count)]
        self._pool = ThreadPoolExecutor(count)

    def insert(self, table: str, seconds: float) -> int:
        """Insert for `seconds`, and return how many rows."""
        until = time.perf_counter() + seconds
        return sum(self._pool.map(partial(inserted, INSERT.format(table=table), until), self._connections))

    def close(self) -> None:
        """Close the connections."""
        self._pool.shutdown()
        for connection in self._connections:
            connection.close()


def inserted(statement: str, until: float, connection: psycopg.Connection) -> int:
    """Return how often the statement was executed until then."""
    cursor, count = connection.cursor(), 0
    while time.perf_counter() < until:
        cursor.execute(statement)
        count += 1
    return count


def pair(clients: Clients, seconds: float) -> dict[str, float]:
    """Return rows per second of each table, of turns that alternate."""
    turns = max(2, round(seconds / TURN_SECONDS))
    rows = dict.fromkeys(TABLES, 0)
    for number in range(turns):
        for table in TABLES if number % 2 == 0 else reversed(TABLES):
            rows[table] += clients.insert(table, TURN_SECONDS)
    return {table: count / (turns * TURN_SECONDS) for table, count in rows.items()}


def compare(server: EmbeddedServer, connections: int, pairs: int, seconds: float) -> dict[str, object]:
    """Run watched and plain blocks interleaved."""
    clients = Clients(server.dsn, connections)
    pair(clients, 1.0)
    rates = []
    for _ in range(pairs):
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute("TRUNCATE trigger_cost.watched, trigger_cost.plain, genesis.operations")
            connection.execute("CHECKPOINT")
        rates.append(pair(clients, seconds))
    clients.close()
    ratios = [rate["watched"] / rate["plain"] for rate in rates]
    low, high, coverage = median_interval(ratios)
    watched, plain = (statistics.median(rate[table] for rate in rates) for table in TABLES)
    return {
        "connections": connections,
        "watched_per_second": watched,
        "plain_per_second": plain,
        "added_seconds": connections * (1 / watched - 1 / plain),
        "ratio": statistics.median(ratios),
        "ratio_low": low,
        "ratio_high": high,
        "interval_coverage": coverage,
        "pairs": pairs,
        "seconds": seconds,
    }


def prepare(server: EmbeddedServer) -> None:
    """Make schema genesis and the two tables, and watch one of them."""
    with connect(ConnectionSettings.from_dsn(server.dsn)) as connection:
        install_schema(connection)
        connection.execute("CREATE SCHEMA trigger_cost")
        connection.execute(MAKE_TABLES, prepare=False)
        connection.execute("SELECT genesis.watch_table('trigger_cost.watched')")


def show(rows: list[dict[str, object]]) -> None:
    """Print what came out."""
    print(f"{'connections':>11} {'watched/s':>10} {'plain/s':>9} {'added':>8} {'ratio':>6} {'interval':>14}")
    for row in rows:
        met = "met" if row["ratio"] >= GOAL_RATIO else "MISSED"
        print(
            f"{row['connections']:>11} {row['watched_per_second']:>10,.0f} {row['plain_per_second']:>9,.0f}"
            f" {1e6 * row['added_seconds']:>5.0f} µs {row['ratio']:>6.3f}"
            f" {row['ratio_low']:>6.3f} … {row['ratio_high']:.3f}"
            f"  ({row['interval_coverage']:.0%} interval), goal ≥ {GOAL_RATIO}: {met}"
        )


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
            prepare(server)
            rows = [compare(server, count, arguments.pairs, arguments.seconds) for count in CONNECTIONS]
            result = {
                "server_version_num": server.version_num,
                "cores": len(os.sched_getaffinity(0)),
                "load_average_at_end": os.getloadavg()[0],
                "inserts": rows,
            }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    show(rows)


if __name__ == "__main__":
    run_benchmark(main)
