"""Every benchmark runs to its end, however short, and writes its figures; the figures themselves are not judged."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ml_postgres_optimization.target.embedded import all_binaries

ROOT = Path(__file__).resolve().parents[2]
SHORTEST = {
    "equal_arms": ("--trials", "2", "--pairs", "1", "--seconds", "0.5"),
    # what waits for a lease, or restarts, is in tests/postgres/test_protection.py
    "faults": (
        *("--kill", "1", "--crash", "1", "--stop", "0", "--network", "0", "--human", "1"),
        *("--contradicted", "0", "--restart", "0", "--servers", "2"),
    ),
    "drift_detection": ("--runs", "1"),
    "footprint": ("--hours", "0.002"),
    "fuzzing": ("--cases", "30", "--from", "5000"),
    "generator": ("--pairs", "1", "--seconds", "0.3"),
    "memory_guard": ("--configurations", "20", "--rehearsed", "1"),
    "monitoring_cost": ("--pairs", "1"),
    "outage": ("--seconds", "1"),
    "protection_cost": ("--times", "3", "--seconds", "0.5"),
    "prediction": ("--windows", "1500"),
    # too few windows to learn from: that it records, and says so
    "prediction_under_faults": ("--minutes", "0.12", "--window-seconds", "0.5", "--haste", "10"),
    "prediction_in_database": ("--windows", "300", "--rows", "120", "--rounds", "1"),
    "recovery": ("--pairs", "1", "--seconds", "1", "--scale", "0.02"),
    "load_cost": ("--rounds", "1", "--operations", "500"),
    "lost_commits": ("--cuts", "3"),
    "retry_cost": ("--rounds", "2", "--calls", "100"),
    "settle_length": ("--pairs", "20"),
    "soak_attach": ("--hours", "0.2", "--per-second", "5"),
    "soak_cost": ("--minutes", "0.05", "--interval-seconds", "1", "--rounds", "1", "--seconds", "0.5"),
    "soak_kills": ("--kills", "3", "--crashes", "1"),
    "stall": ("--pairs", "1", "--seconds", "5"),
    "transfer": ("--seeds", "1", "--stored-trials", "3", "--most-trials", "3", "--known-trials", "20"),
    "trial_statistics": ("--trials", "10"),
    "trigger_cost": ("--pairs", "1", "--seconds", "0.3"),
    "tuners": (
        *("--minutes", "0.1", "--pairs", "1", "--seeds", "1", "--scale", "1"),
        *("--compared-seconds", "2"),
        *("--workloads", "tpcb", "--methods", "random"),
    ),
    "two_optimisers": ("--pairs", "1"),
    "watching": ("--days", "1", "--runs", "2", "--windows", "200"),
}
# some ten seconds even so; what they call is tested by itself
LONG = {
    *(
        "equal_arms",
        "faults",
        "footprint",
        "fuzzing",
        "generator",
        "monitoring_cost",
        "outage",
        "prediction",
        "prediction_in_database",
        "prediction_under_faults",
        "protection_cost",
        "soak_attach",
        "soak_cost",
        "soak_kills",
        "stall",
        "two_optimisers",
    ),
    *("transfer", "trial_statistics", "trigger_cost", "tuners", "watching"),
}
AGAINST_PGBENCH = {"generator", "monitoring_cost"}


def test_none_is_forgotten():
    assert {path.stem for path in (ROOT / "benchmarks").glob("*.py")} == SHORTEST.keys()


def test_whatever_starts_a_server_is_run_so_that_it_ends_with_it():
    for path in (ROOT / "benchmarks").glob("*.py"):
        source = path.read_text()
        if "EmbeddedServer" in source or "own_server" in source:
            assert source.endswith("    run_benchmark(main)\n"), path


ENDED_BY_SIGTERM = """
import contextlib, signal
from running import run_benchmark

@contextlib.contextmanager
def server():
    try:
        yield
    finally:
        print("stopped", flush=True)

def main():
    with server():
        print("started", flush=True)
        signal.pause()

run_benchmark(main)
"""


def test_a_benchmark_that_is_terminated_leaves_its_contexts():
    with subprocess.Popen(
        [sys.executable, "-c", ENDED_BY_SIGTERM],
        env={**os.environ, "PYTHONPATH": str(ROOT / "benchmarks")},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "started\n"
        process.terminate()
        assert process.stdout.read() == "stopped\n"
    assert process.returncode == 128 + signal.SIGTERM


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if name in LONG else name for name in SHORTEST]
)
def test_a_benchmark_runs_to_its_end(name, folder):
    if name in AGAINST_PGBENCH and not any(one.program("pgbench").exists() for one in all_binaries()):
        pytest.skip("no PostgreSQL here has pgbench")
    # a copy writes beside itself, not over the figures that were taken at full length
    shutil.copytree(
        ROOT / "benchmarks", folder / "benchmarks", ignore=shutil.ignore_patterns("results", "__pycache__")
    )
    for name_of_ours in ("run.py", "tests"):
        (folder / name_of_ours).symlink_to(ROOT / name_of_ours)
    process = subprocess.run(
        [sys.executable, folder / "benchmarks" / f"{name}.py", *SHORTEST[name]],
        env={name: value for name, value in os.environ.items() if not name.startswith(("PG", "POSTGRES_"))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert json.loads((folder / "benchmarks" / "results" / f"{name}.json").read_text())
