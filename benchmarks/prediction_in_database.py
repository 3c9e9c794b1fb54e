"""How long 10,000 predictions take inside PostgreSQL, against scikit-learn on the same rows, and how long one takes.

A forest of default size learns from made-up windows; its trees are stored by `Repository.add_forests`. scikit-learn
predicts with the forest that it grew itself, of the same settings; our own arrays in numpy are shown beside it. The
rows lie in tables: as JSON, and as arrays of numbers. All ways take turns. CPU time is that of the server's process,
for machines that do other work.

    python benchmarks/prediction_in_database.py --windows 5500 --rows 10000 --rounds 7
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psutil
import psycopg
import sklearn
from prediction import configurations, tabulate
from running import run_benchmark
from sklearn.ensemble import RandomForestRegressor

from ml_postgres_optimization.interfaces.workbench.stored import forest_record
from ml_postgres_optimization.models.error_forest import ErrorForest
from ml_postgres_optimization.models.features import Table
from ml_postgres_optimization.models.latency_forest import LatencyForest
from ml_postgres_optimization.models.training import ForestSettings
from ml_postgres_optimization.target.embedded import EmbeddedServer, find_binaries
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings, connect
from ml_postgres_optimization.target.postgres.repository import Repository
from ml_postgres_optimization.target.postgres.schema import install_schema

RESULT = Path(__file__).resolve().parent / "results" / "prediction_in_database.json"
GOAL_SECONDS = 1.0
AS_JSON = "(SELECT array_agg(features ORDER BY number) FROM public.as_json WHERE number <= {rows})"
AS_MATRIX = (
    "(SELECT names FROM public.names), (SELECT array_agg(cells ORDER BY number) FROM public.as_numbers "
    "WHERE number <= {rows})"
)
WAYS = {
    "latency, from numbers": f"SELECT sum(predicted_seconds) FROM genesis.predict_latencies({AS_MATRIX})",
    "latency, from JSON": f"SELECT sum(predicted_seconds) FROM genesis.predict_latencies({AS_JSON})",
    "errors, from numbers": f"SELECT sum(probability) FROM genesis.predict_errors({AS_MATRIX})",
    "errors, from JSON": f"SELECT sum(probability) FROM genesis.predict_errors({AS_JSON})",
}


def started(folder: Path) -> EmbeddedServer:
    """Start a server whose account may enter the folder."""
    folder.chmod(0o755)
    return EmbeddedServer.start(folder / "home", binaries=find_binaries(), system_state=folder / "system")


def load(connection: psycopg.Connection, names: tuple[str, ...], matrix: np.ndarray) -> None:
    """Put the rows into tables, as JSON and as arrays."""
    connection.execute("CREATE TABLE public.names (names text[])")
    connection.execute("INSERT INTO public.names VALUES (%s)", [list(names)])
    connection.execute("CREATE TABLE public.as_numbers (number integer PRIMARY KEY, cells double precision[])")
    connection.execute("CREATE TABLE public.as_json (number integer PRIMARY KEY, features jsonb)")
    with connection.cursor() as cursor:
        with cursor.copy("COPY public.as_numbers FROM STDIN") as copy:
            for number, row in enumerate(matrix.tolist(), start=1):
                copy.write_row((number, row))
        with cursor.copy("COPY public.as_json FROM STDIN") as copy:
            for number, row in enumerate(matrix.tolist(), start=1):
                named = {name: None if value != value else value for name, value in zip(names, row, strict=True)}
                copy.write_row((number, json.dumps(named)))
    for table in ("as_numbers", "as_json"):
        connection.execute(f"VACUUM ANALYZE public.{table}")


def timed(work: Callable[[], object], process: psutil.Process) -> dict[str, float]:
    """Return what it took, by the clock and of the processor."""
    wall, spent = time.perf_counter(), sum(process.cpu_times()[:2])
    work()
    return {"seconds": time.perf_counter() - wall, "cpu_seconds": sum(process.cpu_times()[:2]) - spent}


def scikit_learn(table: Table, latency: LatencyForest, seed: int) -> RandomForestRegressor:
    """Return a forest of the same settings that scikit-learn grew, and predicts with, itself."""
    settings = ForestSettings(leaf_rows=10)
    known = np.isfinite(table.next_log_mean)
    model = RandomForestRegressor(
        n_estimators=settings.trees,
        min_samples_leaf=settings.leaf_rows,
        max_features=settings.feature_share,
        max_samples=min(settings.rows_per_tree, int(known.sum())),
        n_jobs=settings.processors,
        random_state=seed,
    )
    return model.fit(table.columns(latency.forest.names)[known], (table.next_log_mean - table.log_mean)[known])


def measure(connection: psycopg.Connection, table: Table, rows: int, rounds: int, seed: int) -> dict[str, object]:
    """Store two forests, and let all ways take turns."""
    latency, errors = LatencyForest.fit(table, seed), ErrorForest.fit(table, seed)
    now = datetime.now(UTC)
    Repository(connection).add_forests([forest_record(model, "benchmark", now) for model in (latency, errors)])
    chosen = np.arange(rows) % len(table)
    load(connection, table.names, table.matrix[chosen].astype(np.float64))
    matrix = table.columns(latency.forest.names)[chosen]
    peer = scikit_learn(table, latency, seed)
    server, own = psutil.Process(connection.info.backend_pid), psutil.Process()
    ways: dict[str, tuple[Callable[[], object], psutil.Process]] = {
        "scikit-learn": (lambda: peer.predict(matrix), own),
        "our arrays in numpy": (lambda: latency.changes.mean_and_deviation(matrix), own),
        "scikit-learn, one row": (lambda: peer.predict(matrix[:1]), own),
    }
    for name, query in WAYS.items():
        ways[name] = (lambda query=query: connection.execute(query.format(rows=rows)).fetchall(), server)
        one = query.format(rows=1)
        ways[f"{name}, one row"] = (lambda query=one: connection.execute(query).fetchall(), server)
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, (work, process) in ways.items():
            taken[name].append(timed(work, process))
    said = connection.execute(
        f"SELECT predicted_seconds FROM genesis.predict_latencies({AS_JSON.format(rows=rows)}) ORDER BY place"
    ).fetchall()
    mean, _ = latency.changes.mean_and_deviation(matrix)
    present = table.matrix[chosen][:, table.names.index("latency.log_mean")].astype(np.float64)
    wanted = np.exp(np.where(np.isnan(present), latency.usual[1], present + mean))
    return {
        "nodes": {"latency": len(latency.forest.feature), "errors": len(errors.forest.feature)},
        "features": len(table.names),
        "classes": len(errors.calibrations),
        "largest_difference_seconds": float(np.abs(np.array(said)[:, 0] - wanted).max()),
        "taken": {name: summary(each) for name, each in taken.items()},
    }


def summary(taken: list[dict[str, float]]) -> dict[str, float]:
    """Return medians and extremes."""
    seconds = [one["seconds"] for one in taken]
    return {
        "median_seconds": float(np.median(seconds)),
        "fastest_seconds": min(seconds),
        "slowest_seconds": max(seconds),
        "median_cpu_seconds": float(np.median([one["cpu_seconds"] for one in taken])),
    }


def show(result: dict[str, object]) -> None:
    """Print what each way took."""
    shape = f"{result['features']} features, nodes {result['nodes']}"
    print(f"{result['rows']:,} rows of {shape}, {result['rounds']} rounds")
    print(f"largest difference to Python: {result['largest_difference_seconds']:.1e} s")
    peer = result["taken"]["scikit-learn"]["median_seconds"]
    for name, taken in result["taken"].items():
        times = f"{1e3 * taken['median_seconds']:>9.1f} ms ({1e3 * taken['fastest_seconds']:.1f} to "
        times += f"{1e3 * taken['slowest_seconds']:.1f}), CPU {1e3 * taken['median_cpu_seconds']:.0f} ms"
        is_whole = "one row" not in name
        ratio = f"{taken['median_seconds'] / peer:>6.1f} x scikit-learn" if is_whole else ""
        met = "met" if taken["median_seconds"] <= GOAL_SECONDS else "MISSED"
        print(f"{name:>32} {times} {ratio} {met if is_whole and 'from' in name else ''}")


def main() -> None:
    """Measure, store and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=5_500)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    table, _ = tabulate(arguments.windows, configurations(rng), rng)
    with (
        tempfile.TemporaryDirectory(prefix="genesis-benchmark-") as folder,
        started(Path(folder)) as server,
        connect(ConnectionSettings.from_dsn(server.dsn), statement_timeout_seconds=0) as connection,
    ):
        install_schema(connection)
        result = {
            "rows": arguments.rows,
            "rounds": arguments.rounds,
            "cores": len(os.sched_getaffinity(0)),
            "python": platform.python_version(),
            "scikit_learn": sklearn.__version__,
            "postgresql": connection.info.parameter_status("server_version"),
            "load_average_at_start": os.getloadavg()[0],
            **measure(connection, table, arguments.rows, arguments.rounds, arguments.seed),
        }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    show(result)


if __name__ == "__main__":
    run_benchmark(main)
