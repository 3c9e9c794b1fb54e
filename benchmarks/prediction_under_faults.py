"""How well the forests predict what a real server does under faults, on time that they have not seen.

A server of our own runs our load while faults come by a schedule: locks held longer than `lock_timeout`, deadlocks,
serialisation conflicts, and connections that are used up. Each lasts several windows, and all but the second and the
third can be seen coming for a moment: sessions queue before they time out, and the connections fill up before any is
refused. Nothing tells the forests of the schedule: they learn from the windows before `--held-out` of the time,
as `genesis-pg train` would, and are asked about every window after it.

Shown for each class of errors: the area under the curve (AUC), with its 95 % interval by blocks of time; the same for
windows whose predecessor had no error of the class (onset), which no memory helps with; Brier score against the naive
forecast; expected calibration error, and the table behind it; and two that tell what can be known at all:

- the AUC of an oracle, which is told what faults will be in force in the next window, and how often an error of the
  class came in windows with just these, of all time: it knows more of the future than a forest does, and less of
  the present;
- the same forecast's AUC for windows with two errors of the class or more, since a load that meets itself brings
  about single ones that nothing announces.

Of latency: how often the 90 % interval held, while no fault was in force and while one was, as it was calibrated and
as it is adapted from one outcome to the next in use.

    python benchmarks/prediction_under_faults.py --minutes 25

`--table FILE` keeps what was recorded, and judges it again where it is there already.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from dataclasses import dataclass, fields
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
from ml_postgres_optimization.models.features.summary import summarise
from ml_postgres_optimization.models.latency_forest import LatencyForest
from ml_postgres_optimization.models.score import LEVEL, IntervalWidth
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


@dataclass(frozen=True)
class Recording:
    """The windows of a load under faults, in the order of time.

    `faults`: when each was in force, in seconds since 1970, shape (n_faults, 2); `kinds`: of which kind it was;
    `failures`: errors of each class in each window, shape (n_windows, n_classes).
    """

    table: Table
    faults: np.ndarray
    kinds: np.ndarray
    failures: np.ndarray

    @property
    def next_in_force(self) -> np.ndarray:
        """Whether each fault is in force in the window that comes next, shape (n_faults, n_windows)."""
        begins, ends = self.table.ended_at, 2 * self.table.ended_at - self.table.started_at
        return (self.faults[:, :1] < ends) & (self.faults[:, 1:] > begins)


def record(server: EmbeddedServer, arguments: argparse.Namespace) -> Recording:
    """Record a load under faults."""
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
    failures = [summarise(window).failures for window in windows]
    return Recording(
        Table.of(stream_observations(windows, {configuration.id: configuration})),
        *spells(injector.records),
        np.array([[one.get(name, 0) for name in ERROR_CLASSES] for one in failures]),
    )


def spells(records: tuple[FaultRecord, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return beginning and end of each fault in seconds since 1970, shape (n_faults, 2), and its kind."""
    offset = datetime.now(UTC).timestamp() - time.monotonic()
    happened = [one for one in records if one.began_seconds is not None]
    times = [(one.began_seconds, one.ended_seconds) for one in happened]
    return np.array(times, dtype=np.float64).reshape(-1, 2) + offset, np.array(
        [str(one.fault.kind) for one in happened]
    )


def kept(path: Path, recording: Recording) -> None:
    """Keep what was recorded."""
    table = {part.name: np.array(getattr(recording.table, part.name)) for part in fields(Table)}
    np.savez(path, faults=recording.faults, kinds=recording.kinds, failures=recording.failures, **table)


def read(path: Path) -> Recording:
    """Read what was kept."""
    with np.load(path) as stored:
        parts = {part.name: stored[part.name] for part in fields(Table)}
        table = Table(**{**parts, "names": tuple(map(str, parts["names"]))})
        return Recording(table, stored["faults"], stored["kinds"], stored["failures"])


def oracle(recording: Recording, column: int) -> np.ndarray:
    """Return how often an error of a class came in windows with the same kinds of faults as the next one."""
    known = np.unique(recording.kinds)
    in_force = np.array([recording.next_in_force[recording.kinds == kind].any(axis=0) for kind in known])
    state = (2 ** np.arange(len(known))) @ in_force.reshape(len(known), -1)
    after = recording.table.next_errors[:, column]
    often = {one: np.nanmean(after[(state == one) | np.isnan(after)]) for one in np.unique(state[~np.isnan(after)])}
    return np.array([often.get(one, 0.0) for one in state])


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


def errors_judged(recording: Recording, first: int, seed: int) -> dict[str, dict]:
    """Learn from the `first` windows, and judge the forecast of each class afterwards, and of all put together."""
    past = recording.table.rows(np.arange(first))
    forest = ErrorForest.fit(past, seed)
    rows = np.arange(first + 1, len(recording.table))
    rows = rows[~np.isnan(recording.table.next_errors[rows]).any(axis=1)]
    later, counts = recording.table.rows(rows), recording.failures[rows + 1]
    raw = forest.forest.tree_values(later.columns(forest.forest.names)).mean(axis=1)
    parts, bounds = {}, {}
    for output, (name, calibration) in enumerate(forest.calibrations.items()):
        column = ERROR_CLASSES.index(name)
        told, naive = calibration.apply(raw[:, output]), naive_forecast(past, later, column)
        occurred, known = later.next_errors[:, column] > 0, oracle(recording, column)
        happened = recording.table.next_errors[:, column]
        seen = ~np.isnan(happened)
        parts[str(name)] = (occurred, told, naive, later.errors[:, column])
        bounds[str(name)] = {
            "oracle_auc": auc(occurred, known[rows]),
            "oracle_auc_of_all_time": auc(happened[seen] > 0, known[seen]),
            "several": int((counts[:, column] > 1).sum()),
            "several_auc": auc(counts[:, column] > 1, told),
        }
    figures = {name: judged(*part, seed) | bounds[name] for name, part in parts.items()}
    pooled = [np.stack(part, axis=1).ravel() for part in zip(*parts.values(), strict=True)]
    return figures | ({"pooled": judged(*pooled, seed)} if parts else {})


def latency_judged(recording: Recording, first: int, seed: int) -> dict[str, object]:
    """Learn from the `first` windows, and say how often the interval held afterwards."""
    forest = LatencyForest.fit(recording.table.rows(np.arange(first)), seed)
    known = np.isfinite(recording.table.log_mean) & np.isfinite(recording.table.next_log_mean)
    rows = np.flatnonzero(known & (np.arange(len(known)) > first))
    later, struck = recording.table.rows(rows), recording.next_in_force.any(axis=0)[rows]
    mean, deviation = forest.changes.mean_and_deviation(later.columns(forest.forest.names))
    change = later.next_log_mean - later.log_mean
    half = forest.changes.half_width(deviation)
    widths = {"calibrated": np.ones(len(half)), "adapted": adapted(np.abs(change - mean) / half)}
    return {
        "windows": len(half),
        **{name: covered(np.abs(change - mean) <= half * by, struck, seed) for name, by in widths.items()},
        "median_width": {name: float(np.median(2.0 * half * by)) for name, by in widths.items()},
        "absolute_error": float(np.abs(change - mean).mean()),
        "naive_absolute_error": float(np.abs(change).mean()),
    }


def adapted(residuals: np.ndarray) -> np.ndarray:
    """Return by what the interval is stretched in use, after each outcome before; residuals are in half widths."""
    width, ratios = IntervalWidth(), []
    for residual in residuals:
        ratios.append(width.ratio)
        width = width.after(held=bool(residual <= width.ratio), level=LEVEL)
    return np.array(ratios)


def covered(held: np.ndarray, struck: np.ndarray, seed: int) -> dict[str, object]:
    """Return how often the interval held, and by whether a fault was in force."""
    parts = {"without_fault": held[~struck], "with_fault": held[struck]}
    return {
        "coverage": float(held.mean()),
        "coverage_interval": block_interval(held.astype(float), seed),
        **{
            name: {"windows": len(part), "coverage": float(part.mean()) if len(part) else None}
            for name, part in parts.items()
        },
    }


def block_interval(values: np.ndarray, seed: int) -> list[float]:
    """Return a 95 % interval of the mean by the same bootstrap."""
    rng, length = np.random.default_rng(seed), min(BLOCK_WINDOWS, len(values))
    starts = rng.integers(0, len(values) - length + 1, (RESAMPLES, -(-len(values) // length)))
    means = values[starts[..., np.newaxis] + np.arange(length)].mean(axis=(1, 2))
    return np.quantile(means, [0.025, 0.975]).tolist()


def judge(recording: Recording, arguments: argparse.Namespace) -> dict[str, object]:
    """Return all figures, or why there are none."""
    windows = len(recording.table)
    first = round(windows * (1.0 - arguments.held_out))  # the next is left out, since it is what these end in
    result: dict[str, object] = {
        "windows": windows,
        "held_out_windows": windows - first - 1,
        "faults": len(recording.faults),
    }
    for name, figures in (
        ("errors", lambda: errors_judged(recording, first, arguments.seed)),
        ("latency", lambda: latency_judged(recording, first, arguments.seed)),
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
    print("class             AUC interval        naive  onset oracle  two +   Brier   naive    ECE")
    for name, one in result["errors"].items():
        low, high = one["auc_interval"] or (np.nan, np.nan)
        shown = [one.get(part) for part in ("auc", "naive_auc", "onset_auc", "oracle_auc_of_all_time", "several_auc")]
        areas = [np.nan if area is None else area for area in shown]
        met = "met" if areas[0] >= GOAL_AUC else "MISSED"
        rest = " ".join(f"{area:>6.3f}" for area in areas[1:])
        row = f"{name:<14} {areas[0]:>6.3f} {low:.3f} to {high:.3f} {rest}"
        print(f"{row} {one['brier']:>7.4f} {one['naive_brier']:>7.4f} {one['calibration_error']:>6.3f}  {met}")
    for bin_ in result["errors"].get("pooled", {"reliability": []})["reliability"]:
        told = f"{bin_['told']:.3f} told, {bin_['came']:.3f} came"
        print(f"  {bin_['from']:.2f} to {bin_['to']:.2f}: {told}, {bin_['windows']} windows")
    for way in ("calibrated", "adapted"):
        held, (low, high) = result["latency"][way], GOAL_COVERAGE
        print(f"interval of latency, {way}, held {held['coverage']:.3f}, wanted {low} to {high}")
        for name in ("without_fault", "with_fault"):
            print(f"  {name}: {held[name]['coverage']} of {held[name]['windows']} windows")


def recorded(arguments: argparse.Namespace) -> Recording:
    """Read the table where it was kept, else record it, and keep it where that is asked for."""
    if arguments.table is not None and arguments.table.exists():
        return read(arguments.table)
    with tempfile.TemporaryDirectory(prefix="genesis-benchmark-") as folder:
        Path(folder).chmod(0o755)
        with EmbeddedServer.start(Path(folder) / "server", binaries=find_binaries(), settings=SERVER) as server:
            recording = record(server, arguments)
    if arguments.table is not None:
        kept(arguments.table, recording)
    return recording


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
    recording = recorded(arguments)
    result = {
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "scikit_learn": sklearn.__version__,
        "load_average_at_start": started_load,
        "window_seconds": arguments.window_seconds,
        **judge(recording, arguments),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    show(result)


if __name__ == "__main__":
    run_benchmark(main)
