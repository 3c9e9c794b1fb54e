"""How long a forecast takes, and how long and how much memory training on 50,000 windows takes.

No server is needed. The windows are made up and share 250 histograms, since 50,000 with histograms of their own would
take 16 GB; reading a shared one costs what it costs with any other. The forests learn from the table that a running
optimiser extends window by window; making that table anew from the windows is shown apart. The goals are for wall
time; CPU time is given for machines that do other work.

    python benchmarks/prediction.py --windows 50000
"""

import argparse
import json
import os
import platform
import resource
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import numpy as np
import sklearn

from ml_postgres_optimization.knobs.configuration import CONCURRENCY, Configuration
from ml_postgres_optimization.models.error_forest import ErrorForest
from ml_postgres_optimization.models.features import TELEMETRY, LoadContext, Table, stream_observations
from ml_postgres_optimization.models.knob_forest import KnobForest
from ml_postgres_optimization.models.latency_forest import LatencyForest
from ml_postgres_optimization.models.observation import Observation
from ml_postgres_optimization.telemetry import Histogram, OperationWindow, Window

RESULT = Path(__file__).resolve().parent / "results" / "prediction.json"
GOAL_PREDICTION_SECONDS = 0.005
GOAL_TRAINING_SECONDS = 10.0
MIX = {"read": 0.45, "write": 0.30, "update": 0.15, "transaction": 0.05, "delete": 0.05}
KNOBS = 30
CONFIGURATIONS = 300
LATENCY_STEPS = 50
WINDOWS_IN_A_ROW = 6
WINDOW = timedelta(seconds=10)
START = datetime(2026, 1, 1, tzinfo=UTC)
PREDICTIONS = 2_000
CANDIDATES = 5_000


def configurations(rng: np.random.Generator) -> list[Configuration]:
    """Return random configurations of 30 knobs and the concurrency limit."""
    return [
        Configuration(
            {f"knob_{number}": int(2 ** rng.uniform(4, 20)) for number in range(KNOBS)}
            | {CONCURRENCY: int(rng.integers(2, 100))}
        )
        for _ in range(CONFIGURATIONS)
    ]


def shared_operations(rng: np.random.Generator) -> list[dict[str, OperationWindow]]:
    """Return operations of every kind at 50 latencies from 0.3 ms to 300 ms."""
    latencies = np.geomspace(3e-4, 0.3, LATENCY_STEPS)
    return [
        {
            kind: OperationWindow(
                Histogram.of(rng.lognormal(np.log(seconds), 0.6, int(5_000 * share))),
                Histogram.of(rng.lognormal(np.log(0.7 * seconds), 0.5, int(5_000 * share))),
            )
            for kind, share in MIX.items()
        }
        for seconds in latencies
    ]


def windows(count: int, tried: list[Configuration], rng: np.random.Generator) -> Iterator[Window]:
    """Yield adjacent windows whose latency follows the configuration, the load and the past."""
    operations = shared_operations(rng)
    level = 0.0
    for number in range(count):
        configuration = tried[(number // WINDOWS_IN_A_ROW) % len(tried)]
        level = 0.7 * level + 2.0 * rng.normal()
        step = 25 + level + 0.1 * (float(configuration[CONCURRENCY]) - 50)
        values = dict(zip(TELEMETRY, (1_000.0 * rng.random(len(TELEMETRY))).tolist(), strict=True))
        failures = {"40P01": int(rng.random() < 0.05), "57014": int(rng.random() < (0.3 if level > 2 else 0.01))}
        yield Window(
            START + number * WINDOW,
            START + (number + 1) * WINDOW,
            configuration.id,
            labels={"run": "benchmark", "level": ("MEDIUM", "HIGH", "EXTREME")[number // 600 % 3]},
            rates={name: value for name, value in values.items() if name.endswith("_per_second")},
            gauges={name: value for name, value in values.items() if not name.endswith("_per_second")},
            waits={"CPU": 2.0 * rng.random(), "IO": rng.random(), "LWLock": rng.random()},
            operations=operations[int(np.clip(step, 0, LATENCY_STEPS - 1))],
            lag=operations[0]["read"].response,
            errors={code: failed for code, failed in failures.items() if failed},
        )


def timed(work: Callable[[], object]) -> tuple[object, dict[str, float]]:
    """Return the result, and what it took."""
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    spent = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - processor}
    return result, spent | {"peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0}


def tabulate(count: int, tried: list[Configuration], rng: np.random.Generator) -> tuple[Table, dict[str, float]]:
    """Return the table of many windows, made in portions, and what that took without making the windows."""
    source = windows(count, tried, rng)
    known = {configuration.id: configuration for configuration in tried}
    parts, total = [], {"seconds": 0.0, "cpu_seconds": 0.0}
    while portion := list(islice(source, 1_000)):
        part, spent = timed(lambda chosen=portion: Table.of(stream_observations(chosen, known)))
        parts.append(part)
        total = {name: total[name] + spent[name] for name in total} | {
            "peak_memory_bytes": spent["peak_memory_bytes"]
        }
    return Table.joined(parts), total


def single_predictions(predict: Callable[[], object]) -> dict[str, float]:
    """Return how long one forecast takes, features included."""
    predict()
    taken = []
    for _ in range(PREDICTIONS):
        wall, processor = time.perf_counter(), time.thread_time()
        predict()
        taken.append((time.perf_counter() - wall, time.thread_time() - processor))
    (p50, cpu_p50), (p99, cpu_p99) = np.quantile(taken, [0.5, 0.99], axis=0).tolist()
    return {"p50_seconds": p50, "p99_seconds": p99, "p50_cpu_seconds": cpu_p50, "p99_cpu_seconds": cpu_p99}


def measure(count: int, seed: int) -> dict[str, object]:
    """Train and ask all three forests."""
    rng = np.random.default_rng(seed)
    tried = configurations(rng)
    table, table_spent = tabulate(count, tried, rng)
    training = {}
    models = {}
    for forest in (LatencyForest, ErrorForest, KnobForest):
        models[forest.kind], training[forest.kind] = timed(lambda chosen=forest: chosen.fit(table, seed))
    first, second = islice(windows(2, tried, rng), 2)
    observation = Observation(tried[0], second, first)
    context = LoadContext.of(second)
    candidates = [tried[number % len(tried)].replaced({"knob_1": number}) for number in range(CANDIDATES)]
    _, many = timed(lambda: models["knobs"].predict_many(candidates, context))
    return {
        "windows": count,
        "features": len(table.names),
        "table": table_spent,
        "training": training,
        "prediction": {
            "latency": single_predictions(lambda: models["latency"].predict(observation)),
            "errors": single_predictions(lambda: models["errors"].predict(observation)),
            "knobs": single_predictions(lambda: models["knobs"].predict(tried[0], context)),
        },
        "candidates": {"count": CANDIDATES, **many},
        "latency_coverage_ratio": models["latency"].score.coverage_ratio,
    }


def show(result: dict[str, object]) -> None:
    """Print both tables."""
    print(f"{result['windows']:,} windows of {result['features']} features")
    print(f"\n{'training':>12} {'wall':>8} {'CPU':>8} {'peak memory':>12}  goal ≤ {GOAL_TRAINING_SECONDS:.0f} s")
    rows = {"table": result["table"], **result["training"]}
    for name, spent in rows.items():
        met = "" if name == "table" else "met" if spent["seconds"] <= GOAL_TRAINING_SECONDS else "MISSED"
        memory = f"{spent['peak_memory_bytes'] / 2**20:,.0f} MB"
        print(f"{name:>12} {spent['seconds']:>6.2f} s {spent['cpu_seconds']:>6.2f} s {memory:>12}  {met}")
    print(f"\n{'prediction':>12} {'p50':>9} {'p99':>9} {'CPU p99':>9}  goal ≤ {1e3 * GOAL_PREDICTION_SECONDS:.0f} ms")
    for name, taken in result["prediction"].items():
        met = "met" if taken["p99_seconds"] <= GOAL_PREDICTION_SECONDS else "MISSED"
        times = " ".join(
            f"{1e3 * taken[part]:>6.2f} ms" for part in ("p50_seconds", "p99_seconds", "p99_cpu_seconds")
        )
        print(f"{name:>12} {times}  {met}")
    candidates = result["candidates"]
    print(f"\n{candidates['count']:,} candidates on the response surface: {candidates['seconds']:.2f} s")


def main() -> None:
    """Measure, store and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    result = {
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "scikit_learn": sklearn.__version__,
        "load_average_at_start": os.getloadavg()[0],
        **measure(arguments.windows, arguments.seed),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    show(result)


if __name__ == "__main__":
    main()
