"""What `genesis.watch_table` costs the statements that it watches.

The same closed loop (single-row insert, prepared, one transaction each, with the server's default durability) on two
tables that are alike, of which one is watched. Blocks run in the order A B B A (watched, plain, plain, watched), so
that a drift of the machine hits both; both tables are emptied before each pair. The load comes from pgbench where it is
installed, else from our generator's driver, psycopg. The interval is that of the sign test: distribution-free, for the
median.

    python benchmarks/trigger_cost.py --pairs 6 --seconds 3
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import psycopg
from generator import median_interval
from psycopg.conninfo import conninfo_to_dict

from ml_postgres_optimization.target.embedded import EmbeddedServer, find_binaries
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings, connect
from ml_postgres_optimization.target.postgres.schema import install_schema

RESULT = Path(__file__).resolve().parent / "results" / "trigger_cost.json"
CONNECTIONS = (1, 8)
GOAL_RATIO = 0.85
TABLES = ("watched", "plain")
INSERT = "INSERT INTO trigger_cost.{table} (account_id, amount, note) VALUES (1, 100, 'a note of a usual length');"
MAKE_TABLES = "; ".join(
    f"CREATE TABLE trigger_cost.{table} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, account_id integer NOT NULL, "
    "amount integer NOT NULL, note text NOT NULL, at timestamptz NOT NULL DEFAULT now())"
    for table in TABLES
)


def by_pgbench(server: EmbeddedServer, table: str, connections: int, seconds: float) -> float:
    """Return pgbench's inserts per second."""
    parameters = conninfo_to_dict(server.dsn)
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(INSERT.format(table=table))
        script.flush()
        output = subprocess.run(
            [
                *(server.bin_directory / "pgbench", "-n", "-M", "prepared", "-f", script.name),
                *("-c", str(connections), "-j", "1", "-T", str(max(1, round(seconds)))),
                *("-h", parameters["host"], "-p", str(parameters["port"]), "-U", parameters["user"]),
                parameters["dbname"],
            ],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    return float(output.split("tps = ")[1].split()[0])


def by_psycopg(server: EmbeddedServer, table: str, connections: int, seconds: float) -> float:
    """Return inserts per second of as many threads as connections."""
    done: list[int] = []

    def insert() -> None:
        count, until = 0, time.perf_counter() + seconds
        with psycopg.connect(server.dsn, autocommit=True, prepare_threshold=0) as connection:
            while time.perf_counter() < until:
                connection.execute(INSERT.format(table=table))
                count += 1
        done.append(count)

    threads = [threading.Thread(target=insert) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / seconds


def compare(server: EmbeddedServer, connections: int, pairs: int, seconds: float) -> dict[str, object]:
    """Run watched and plain blocks interleaved."""
    run = by_pgbench if (server.bin_directory / "pgbench").exists() else by_psycopg
    rates: dict[str, list[float]] = {table: [] for table in TABLES}
    for number in range(pairs):
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute("TRUNCATE trigger_cost.watched, trigger_cost.plain, genesis.operations")
            connection.execute("CHECKPOINT")
        for table in TABLES if number % 2 == 0 else reversed(TABLES):
            rates[table].append(run(server, table, connections, seconds))
    ratios = [watched / plain for watched, plain in zip(rates["watched"], rates["plain"], strict=True)]
    low, high, coverage = median_interval(ratios)
    watched, plain = (statistics.median(rates[table]) for table in TABLES)
    return {
        "connections": connections,
        "driver": run.__name__.removeprefix("by_"),
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
    parser.add_argument("--pairs", type=int, default=12, help="blocks of each, for each number of connections")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a block")
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
    main()
