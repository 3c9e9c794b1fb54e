"""Trials of settings that make no difference, on a real server under load: does any get promoted?

Every other trial is a switchback through `ALTER SYSTEM` and reload (`autovacuum_work_mem` from -1, which stands for
`maintenance_work_mem`, to the very same 64 MB), the others run side by side in our sessions (`jit_above_cost` from
100,000 to 110,000, while no plan costs a tenth of that). Whatever else goes on on the machine is the noise. Trials
that were held already, in an interrupted run, are not held again.

    python benchmarks/equal_arms.py --trials 30
"""

import argparse
import json
import os
import random
import tempfile
from collections import Counter
from pathlib import Path

import psycopg
from running import run_benchmark

from ml_postgres_optimization.knobs.catalogue import load_catalogue
from ml_postgres_optimization.knobs.configuration import CONCURRENCY
from ml_postgres_optimization.safety.guard import Guard
from ml_postgres_optimization.safety.journal import Journal
from ml_postgres_optimization.target.embedded import EmbeddedServer, find_binaries
from ml_postgres_optimization.target.postgres.connection import resolve_connection
from ml_postgres_optimization.target.postgres.server import PostgresTarget
from ml_postgres_optimization.telemetry import Recorder, SystemClock
from ml_postgres_optimization.trials import Outcome, Proposal, Trial, TrialPlan
from ml_postgres_optimization.tuning import Laboratory
from ml_postgres_optimization.workload import LEVELS, LoadGenerator, LoadPlan, create_tables

RESULT = Path(__file__).resolve().parent / "results" / "equal_arms.json"
SCALE = 0.1
CONNECTIONS = 8
RATE_PER_SECOND = 600.0
EQUAL = ({"autovacuum_work_mem": 64 * 1024}, {"jit_above_cost": 110_000.0})
MOST_PROMOTED = 1


def hold(server: EmbeddedServer, folder: Path, number: int, plan: TrialPlan) -> Trial:
    """Hold one trial on a server that is as it was at first."""
    reset(server)
    load_plan = LoadPlan(
        LEVELS["MEDIUM"].mix, rate_per_second=RATE_PER_SECOND, connections=CONNECTIONS, seed=number, processes=1
    )
    with (
        PostgresTarget.open(resolve_connection(server.dsn, {})) as target,
        Journal(folder / str(number)) as journal,
        LoadGenerator(server.dsn, load_plan) as load,
    ):
        known, clock = load_catalogue(), SystemClock()
        settings = target.settings(known.settings_needed)
        catalogue = known.confront(settings, target.capabilities.major, target.machine)
        initial = catalogue.configuration_of(settings, {CONCURRENCY: CONNECTIONS})
        guard = Guard(
            target,
            catalogue=catalogue,
            machine=target.machine,
            journal=journal,
            capabilities=target.capabilities,
            active=CONNECTIONS,
        )
        recorder = Recorder(target, clock, samples=load.samples)
        laboratory = Laboratory(guard, recorder, clock, random.Random(number), load, {"run": "equal arms"})
        candidate = initial.replaced(EQUAL[number % len(EQUAL)])
        return laboratory.hold(initial, Proposal(candidate, "user", "it makes no difference"), plan)


def reset(server: EmbeddedServer) -> None:
    """Take back what the trial before may have left in force."""
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM RESET ALL")
        connection.execute("SELECT pg_reload_conf()")


def row(trial: Trial, seed: int) -> dict[str, object]:
    """Return what is kept of a trial."""
    verdict = trial.verdict
    return {
        "seed": seed,
        "design": str(trial.design),
        "outcome": str(verdict.outcome),
        "because": verdict.reason,
        "pairs": len(verdict.pairs),
        "interval": [verdict.ratio, verdict.ratio_low, verdict.ratio_high],
        "slower_parts": [effect.part for effect in trial.slower],
        "seconds": (trial.ended_at - trial.started_at).total_seconds(),
        "load_average": os.getloadavg()[0],
    }


def show(rows: list[dict[str, object]]) -> None:
    """Print the table."""
    print(f"{'trial':>5} {'design':<12} {'outcome':<11} {'pairs':>5} {'ratio':>7}  interval")
    for each in rows:
        ratio, low, high = each["interval"]
        start = f"{each['seed']:>5} {each['design']:<12} {each['outcome']:<11} {each['pairs']:>5}"
        print(f"{start} {ratio:>7.3f}  {low:.3f} to {high:.3f}")
    outcomes = Counter(each["outcome"] for each in rows)
    met = "met" if outcomes[Outcome.PROMOTED] <= MOST_PROMOTED else "MISSED"
    print(f"{dict(outcomes)} of {len(rows)}; promoted at most {MOST_PROMOTED}: {met}")


def main() -> None:
    """Start a server, hold the trials that are still to hold, store and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--pairs", type=int, default=30, help="of a trial, at most")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a block")
    parser.add_argument("--pg-bin", type=Path, default=None, help="folder of PostgreSQL's programs")
    arguments = parser.parse_args()
    RESULT.parent.mkdir(exist_ok=True)
    rows = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else []
    plan = TrialPlan(block_seconds=arguments.seconds, max_pairs=arguments.pairs)
    with tempfile.TemporaryDirectory(prefix="genesis-benchmark-") as folder:
        Path(folder).chmod(0o755)
        with EmbeddedServer.start(
            Path(folder) / "home", binaries=find_binaries(arguments.pg_bin), system_state=Path(folder) / "system"
        ) as server:
            create_tables(server.dsn, SCALE)
            for number in range(len(rows), arguments.trials):
                rows.append(row(hold(server, Path(folder) / "journals", number, plan), number))
                RESULT.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
                show(rows[-1:])
    show(rows)


if __name__ == "__main__":
    run_benchmark(main)
