"""How well the forests predict what a real server does under faults, on time that they have not seen.

A server of our own runs our load while faults come by a schedule: locks held longer than `lock_timeout`, deadlocks,
serialisation conflicts, and connections that are used up. Each lasts several windows, and all but the second and the
third can be seen coming for a moment: sessions queue before they time out, and the connections fill up before any is
refused. Nothing tells the forests of the schedule: they learn from the windows before `--held-out` of the time,
as `genesis-pg train` would, and are asked about every window after it.

Shown for each class of errors: the area under the curve (AUC), with its 95 % interval by blocks of time; the same for
windows whose predecessor had no error of the class (onset), which no memory helps with; Brier score against the naive
forecast; expected calibration error, and the table behind it. Of latency: how often the 90 % interval held, while no
fault was in force and while one was.

    python benchmarks/prediction_under_faults.py --minutes 25

`--table FILE` keeps what was recorded, and judges it again where it is there already.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psycopg
import sklearn
from psycopg.conninfo import make_conninfo
from running import run_benchmark
from sklearn.metrics import roc_auc_score

from ml_postgres_optimization.errors import NotEnoughData
from ml_postgres_optimization.knobs.configuration import CONCURRENCY, Configuration
from ml_postgres_optimization.models.error_forest import ErrorForest
from ml_postgres_optimization.models.features import ERROR_CLASSES, Table, stream_observations
from ml_postgres_optimization.models.latency_forest import LatencyForest
from ml_postgres_optimization.target.embedded import EmbeddedServer, find_binaries
from ml_postgres_optimization.target.postgres.connection import resolve_connection
from ml_postgres_optimization.target.postgres.server import PostgresTarget
from ml_postgres_optimization.telemetry import Recorder, SystemClock
from ml_postgres_optimization.workload import LoadGenerator, LoadPlan, OperationKind, OperationMix, create_tables
from ml_postgres_optimization.workload.faults import (
    ConnectionExhaustion,
    Deadlock,
    FaultGround,
    FaultInjector,
    FaultRate,
    FaultRecord,
    FaultSchedule,
    LockStall,
    SerialisationConflict,
)

RESULT = Path(__file__).resolve().parent / "results" / "prediction_under_faults.json"
GOAL_AUC = 0.85
GOAL_COVERAGE = (0.85, 0.95)
CONNECTIONS = 8
MIX = OperationMix(
    {
        OperationKind.READ: 0.45,
        OperationKind.WRITE: 0.25,
        OperationKind.UPDATE: 0.15,
        OperationKind.TRANSACTION: 0.10,
        OperationKind.DELETE: 0.05,
    }
)
# conflicts need a snapshot that lasts; a session waits long enough for a lock to be seen waiting before it gives up
SESSIONS = {"default_transaction_isolation": "repeatable read", "lock_timeout": "1500ms"}
SERVER = {"max_connections": "40"}
FAULTS = (
    LockStall(seconds=8.0),
    Deadlock(count=1_000, seconds=8.0),
    SerialisationConflict(count=10_000, seconds=8.0),
    ConnectionExhaustion(displaced=5, seconds=3.0, approach_seconds=5.0),
)
EACH_PER_MINUTE = 1.0
BINS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
RESAMPLES = 1_000
BLOCK_WINDOWS = 20


def record(server: EmbeddedServer, arguments: argparse.Namespace) -> tuple[Table, np.ndarray]:
    """Return the windows of a load under faults as a table, and when faults were in force (seconds since 1970)."""
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("CREATE ROLE ordinary LOGIN")
        connection.execute("CREATE DATABASE shop OWNER ordinary")
    dsn = make_conninfo(server.dsn, dbname="shop", user="ordinary")
    create_tables(dsn, 0.05)
    plan = LoadPlan(MIX, arguments.rate, CONNECTIONS, seed=arguments.seed, processes=1, session_settings=SESSIONS)
    rates = tuple(FaultRate(fault, per_minute=EACH_PER_MINUTE * arguments.haste) for fault in FAULTS)
    schedule = FaultSchedule(rates, 60.0 * arguments.minutes, arguments.seed, most_at_once=2)
    configuration, windows, clock = Configuration({CONCURRENCY: CONNECTIONS}), [], SystemClock()
    labels = {"run": "prediction under faults"}
    with (
        PostgresTarget.open(resolve_connection(make_conninfo(server.dsn, dbname="shop"), {})) as target,
        LoadGenerator(dsn, plan) as load,
        FaultInjector(schedule, FaultGround(dsn, plan), clock=clock) as injector,
    ):
        recorder = Recorder(target, clock, samples=load.samples, subscribers=[windows.append])
        while not injector.has_ended:
            recorder.record(arguments.window_seconds, configuration_id=configuration.id, labels=labels)
    print(f"{sum(record.failure is not None for record in injector.records)} faults could not be done")
    return Table.of(stream_observations(windows, {configuration.id: configuration})), spells(injector.records)


def spells(records: tuple[FaultRecord, ...]) -> np.ndarray:
    """Return beginning and end of each fault in seconds since 1970, shape (n_faults, 2)."""
    offset = datetime.now(UTC).timestamp() - time.monotonic()
    happened = [(one.began_seconds, one.ended_seconds) for one in records if one.began_seconds is not None]
    return np.array(happened, dtype=np.float64).reshape(-1, 2) + offset


def kept(path: Path, table: Table, faults: np.ndarray) -> None:
    """Keep what was recorded."""
    np.savez(path, faults=faults, **{part.name: np.array(getattr(table, part.name)) for part in fields(Table)})


def read(path: Path) -> tuple[Table, np.ndarray]:
    """Read what was kept."""
    with np.load(path) as stored:
        parts = {part.name: stored[part.name] for part in fields(Table)}
        return Table(**{**parts, "names": tuple(map(str, parts["names"]))}), stored["faults"]


def parted(table: Table, held_out: float) -> tuple[Table, Table]:
    """Cut the table in time; the window in between belongs to neither, since it is what the first part ends in."""
    first = round(len(table) * (1.0 - held_out))
    return table.rows(np.arange(first)), table.rows(np.arange(first + 1, len(table)))


def auc(occurred: np.ndarray, told: np.ndarray) -> float | None:
    """Return the area under the curve; None where all or none had an error."""
    return float(roc_auc_score(occurred, told)) if 0 < occurred.sum() < len(occurred) else None


def auc_interval(occurred: np.ndarray, told: np.ndarray, seed: int) -> list[float] | None:
    """Return a 95 % interval of the AUC by a moving block bootstrap, since neighbouring windows are alike."""
    rng, length = np.random.default_rng(seed), min(BLOCK_WINDOWS, len(told))
    found = []
    for _ in range(RESAMPLES):
        starts = rng.integers(0, len(told) - length + 1, -(-len(told) // length))
        rows = (starts[:, np.newaxis] + np.arange(length)).ravel()
        found.append(auc(occurred[rows], told[rows]))
    known = [value for value in found if value is not None]
    return np.quantile(known, [0.025, 0.975]).tolist() if known else None


def reliability(occurred: np.ndarray, told: np.ndarray) -> list[dict[str, float]]:
    """Return, for each bin of probability, how often errors were told of and how often they came."""
    bins = np.clip(np.digitize(told, BINS) - 1, 0, len(BINS) - 2)
    return [
        {
            "from": BINS[number],
            "to": BINS[number + 1],
            "windows": int((bins == number).sum()),
            "told": float(told[bins == number].mean()),
            "came": float(occurred[bins == number].mean()),
        }
        for number in range(len(BINS) - 1)
        if (bins == number).any()
    ]


def judged(occurred: np.ndarray, told: np.ndarray, naive: np.ndarray, before: np.ndarray, seed: int) -> dict:
    """Return the figures of one class, or of all classes together."""
    onset = before == 0
    table = reliability(occurred, told)
    return {
        "windows": len(told),
        "occurrences": int(occurred.sum()),
        "auc": auc(occurred, told),
        "auc_interval": auc_interval(occurred, told, seed),
        "naive_auc": auc(occurred, naive),
        "onsets": int(occurred[onset].sum()),
        "onset_auc": auc(occurred[onset], told[onset]),
        "brier": float(np.mean((told - occurred) ** 2)),
        "naive_brier": float(np.mean((naive - occurred) ** 2)),
        "calibration_error": sum(bin_["windows"] * abs(bin_["told"] - bin_["came"]) for bin_ in table) / len(told),
        "reliability": table,
    }


def naive_forecast(past: Table, later: Table, column: int) -> np.ndarray:
    """Return how often an error followed a window with, or without, one of the same class."""
    known = ~np.isnan(past.next_errors[:, column])
    before, after = past.errors[known, column], past.next_errors[known, column]
    often = [(after[before == state].sum() + 1.0) / ((before == state).sum() + 2.0) for state in (0.0, 1.0)]
    return np.where(later.errors[:, column] > 0, often[1], often[0])


def errors_judged(past: Table, later: Table, seed: int) -> dict[str, dict]:
    """Learn from the past, and judge the forecast of each class afterwards, and of all classes put together."""
    forest = ErrorForest.fit(past, seed)
    later = later.rows(~np.isnan(later.next_errors).any(axis=1))
    raw = forest.forest.tree_values(later.columns(forest.forest.names)).mean(axis=1)
    parts = {}
    for output, (name, calibration) in enumerate(forest.calibrations.items()):
        column = ERROR_CLASSES.index(name)
        told, naive = calibration.apply(raw[:, output]), naive_forecast(past, later, column)
        parts[str(name)] = (later.next_errors[:, column] > 0, told, naive, later.errors[:, column])
    figures = {name: judged(*part, seed) for name, part in parts.items()}
    pooled = [np.stack(part, axis=1).ravel() for part in zip(*parts.values(), strict=True)]
    return figures | ({"pooled": judged(*pooled, seed)} if parts else {})


def latency_judged(past: Table, later: Table, faults: np.ndarray, seed: int) -> dict[str, object]:
    """Learn from the past, and say how often the interval held afterwards."""
    forest = LatencyForest.fit(past, seed)
    later = later.rows(np.isfinite(later.log_mean) & np.isfinite(later.next_log_mean))
    mean, deviation = forest.changes.mean_and_deviation(later.columns(forest.forest.names))
    change = later.next_log_mean - later.log_mean
    half = forest.changes.half_width(deviation)
    held = np.abs(change - mean) <= half
    begins, ends = later.ended_at, 2 * later.ended_at - later.started_at
    struck = (
        ((faults[:, :1] < ends) & (faults[:, 1:] > begins)).any(axis=0) if len(faults) else np.zeros(len(held), bool)
    )
    return {
        "windows": len(held),
        "coverage": float(held.mean()),
        "coverage_interval": block_interval(held.astype(float), seed),
        "without_fault": {"windows": int((~struck).sum()), "coverage": float(held[~struck].mean())},
        "with_fault": {
            "windows": int(struck.sum()),
            "coverage": float(held[struck].mean()) if struck.any() else None,
        },
        "median_width": float(np.median(2.0 * half)),
        "absolute_error": float(np.abs(change - mean).mean()),
        "naive_absolute_error": float(np.abs(change).mean()),
    }


def block_interval(values: np.ndarray, seed: int) -> list[float]:
    """Return a 95 % interval of the mean by the same bootstrap."""
    rng, length = np.random.default_rng(seed), min(BLOCK_WINDOWS, len(values))
    starts = rng.integers(0, len(values) - length + 1, (RESAMPLES, -(-len(values) // length)))
    means = values[starts[..., np.newaxis] + np.arange(length)].mean(axis=(1, 2))
    return np.quantile(means, [0.025, 0.975]).tolist()


def judge(table: Table, faults: np.ndarray, arguments: argparse.Namespace) -> dict[str, object]:
    """Return all figures, or why there are none."""
    past, later = parted(table, arguments.held_out)
    result: dict[str, object] = {"windows": len(table), "held_out_windows": len(later), "faults": len(faults)}
    for name, figures in (
        ("errors", lambda: errors_judged(past, later, arguments.seed)),
        ("latency", lambda: latency_judged(past, later, faults, arguments.seed)),
    ):
        try:
            result[name] = figures()
        except NotEnoughData as error:
            result[name] = {"not_learned": error.what}
    return result


def show(result: dict) -> None:
    """Print the tables."""
    print(
        f"{result['windows']:,} windows, {result['held_out_windows']:,} of them held out, {result['faults']} faults"
    )
    if "not_learned" in result["errors"] or "not_learned" in result["latency"]:
        print(result["errors"].get("not_learned"), result["latency"].get("not_learned"))
        return
    print(f"{'class':<14} {'AUC':>6} {'interval':<14} {'naive':>6} {'onset':>6} {'Brier':>7} {'naive':>7} {'ECE':>6}")
    for name, one in result["errors"].items():
        low, high = one["auc_interval"] or (np.nan, np.nan)
        areas = [np.nan if one[part] is None else one[part] for part in ("auc", "naive_auc", "onset_auc")]
        met = "met" if areas[0] >= GOAL_AUC else "MISSED"
        row = f"{name:<14} {areas[0]:>6.3f} {low:.3f} to {high:.3f} {areas[1]:>6.3f} {areas[2]:>6.3f}"
        print(f"{row} {one['brier']:>7.4f} {one['naive_brier']:>7.4f} {one['calibration_error']:>6.3f}  {met}")
    for bin_ in result["errors"].get("pooled", {"reliability": []})["reliability"]:
        told = f"{bin_['told']:.3f} told, {bin_['came']:.3f} came"
        print(f"  {bin_['from']:.2f} to {bin_['to']:.2f}: {told}, {bin_['windows']} windows")
    latency = result["latency"]
    print(f"interval of latency held {latency['coverage']:.3f}, wanted {GOAL_COVERAGE[0]} to {GOAL_COVERAGE[1]}")
    for name in ("without_fault", "with_fault"):
        print(f"  {name}: {latency[name]['coverage']} of {latency[name]['windows']} windows")


def recorded(arguments: argparse.Namespace) -> tuple[Table, np.ndarray]:
    """Read the table where it was kept, else record it, and keep it where that is asked for."""
    if arguments.table is not None and arguments.table.exists():
        return read(arguments.table)
    with tempfile.TemporaryDirectory(prefix="genesis-benchmark-") as folder:
        Path(folder).chmod(0o755)
        with EmbeddedServer.start(Path(folder) / "server", binaries=find_binaries(), settings=SERVER) as server:
            table, faults = record(server, arguments)
    if arguments.table is not None:
        kept(arguments.table, table, faults)
    return table, faults


def main() -> None:
    """Measure, store and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument("--window-seconds", type=float, default=1.0)
    parser.add_argument("--rate", type=float, default=150.0)
    parser.add_argument("--haste", type=float, default=1.0, help="how many times as many faults as usual")
    parser.add_argument("--held-out", type=float, default=0.3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--table", type=Path)
    arguments = parser.parse_args()
    started_load = os.getloadavg()[0]
    table, faults = recorded(arguments)
    result = {
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "scikit_learn": sklearn.__version__,
        "load_average_at_start": started_load,
        "window_seconds": arguments.window_seconds,
        **judge(table, faults, arguments),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    show(result)


if __name__ == "__main__":
    run_benchmark(main)
