"""Our tuner against stock settings, pgtune's rules, random search, Optuna's TPE and GP samplers, and SMAC3.

Every method gets the same time, the same knobs and the same embedded server, on `tpcb` (pgbench's tables at scale 50,
32 clients), `genesis` (level HIGH) and `analytic` (a star schema of about 1 GB). Peers measure one block of each
configuration that they ask for, as their users do, after the same time under load that ours gives it, and end with
the best that they measured; what the memory rule refuses counts as bad. Ours is what `genesis-pg tune` leaves in
force after that time, its proof included: stock, where nothing was proven. What its search comes to if all of the
time is its own is `unproven`. Then the final configuration is measured
again, beside stock, in pairs of blocks in random order; each block begins with a restart, and lasts 15 s or longer,
as restart and warm-up take longer than a search's block. What counts is that ratio.

One cell is a method, a workload and a seed. Cells that were measured already are not measured again, so that the
whole, some hours long, goes on where it was interrupted; `--most N` measures N cells and stops.

    python benchmarks/tuners.py --minutes 8 --seeds 1 2

Needs the extra `benchmarks` (SMAC3, and PyTorch for Optuna's GP sampler).
"""

import argparse
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import fmean, median

import optuna
import psycopg
from peers.asking import peer
from running import run_benchmark
from scipy.stats import binom

from ml_postgres_optimization.errors import ChangeRefused, TargetError
from ml_postgres_optimization.interfaces.commands.offline.bringing import Brought, bring, chosen_workload
from ml_postgres_optimization.interfaces.commands.offline.tune import measured_round, plan_for, tune_on
from ml_postgres_optimization.interfaces.home import Home
from ml_postgres_optimization.interfaces.reporter import Silence
from ml_postgres_optimization.interfaces.session import Session, open_session
from ml_postgres_optimization.interfaces.settings import load_settings
from ml_postgres_optimization.interfaces.workbench.bench import Workbench, open_workbench
from ml_postgres_optimization.interfaces.workbench.observing import Observer
from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.knobs.knob import Scope
from ml_postgres_optimization.knobs.rendering import same_value
from ml_postgres_optimization.telemetry import Window
from ml_postgres_optimization.trials import (
    NO_GUARDS,
    Design,
    Measure,
    Proposal,
    Thresholds,
    TrialPlan,
    mix_of,
    paired_objective,
)
from ml_postgres_optimization.tuning import SearchSpace

RESULT = Path(__file__).resolve().parent / "results" / "tuners.json"
METHODS = ("stock", "rules", "random", "tpe", "gp", "smac", "unproven", "ours")
WORKLOADS = ("tpcb", "analytic", "genesis")
SEARCHING = ("random", "tpe", "gp", "smac", "unproven", "ours")
# As bad as ten times the mean: a configuration that a guard refuses, or under which nothing ended.
_REFUSED_LOG_LOSS = math.log(10)


class Bench:
    """One embedded server with one workload on it, and everything that a cell needs."""

    def __init__(self, session: Session, workbench: Workbench, brought: Brought, plan: TrialPlan) -> None:
        self.session, self.workbench, self.brought, self.plan = session, workbench, brought, plan
        self.initial = workbench.ground.initial
        self.in_force = self.initial
        catalogue = workbench.ground.catalogue
        self.space = SearchSpace.of(catalogue, names=tuple(self.initial))
        self._needs_restart = {name for name, knob in catalogue.items() if knob.scope is Scope.RESTART}

    def put(self, configuration: Configuration) -> None:
        """Put a configuration in force, by a restart only where one is needed."""
        laboratory, target = self.workbench.laboratory, self.session.target
        laboratory.guard.review(configuration, before=self.initial)
        changed = configuration.difference(self.in_force)
        for name, (_, new) in changed.items():
            target.write(name, new)
        self.in_force = configuration
        if changed.keys() & self._needs_restart:
            self._restart()
            laboratory.clock.sleep(self.plan.warm_up_seconds)
        else:
            target.reload()
            self.workbench.load.replan()
            laboratory.clock.sleep(self.plan.settle_seconds)

    def _restart(self) -> None:
        load = self.workbench.load
        load.pause()
        time.sleep(0.5)
        try:
            with self.session.over_a_restart():
                self.session.target.restart({})
        finally:
            load.resume()

    def measure(self) -> Window:
        """Measure one block of what is in force."""
        laboratory = self.workbench.laboratory
        laboratory.recorder.discard()
        return laboratory.recorder.record(self.plan.block_seconds, configuration_id=self.in_force.id)

    def loss(self, configuration: Configuration, reference: Window) -> float:
        """Return the log of the mean response under a configuration, relative to the first block's, in its mix."""
        try:
            self.put(configuration)
        except ChangeRefused:
            return _REFUSED_LOG_LOSS
        window = self.measure()
        first, this = paired_objective(reference, window, reference=reference, measure=Measure.MEAN)
        covered = sum(share for kind, share in mix_of(reference).items() if kind in window.operations)
        if not (first > 0 and this > 0) or covered < 0.5:
            return _REFUSED_LOG_LOSS
        return math.log(this / first)


@contextmanager
def bench_on(home: Home, workload: str, arguments: argparse.Namespace, seed: int) -> Iterator[Bench]:
    """Open the workload's server, as stock, with the load on it."""
    chosen = {"workload": workload, "seed": seed, "level": "HIGH"}
    if (scale := arguments.scales.get(workload)) is not None:
        chosen["scale"] = scale
    settings = load_settings(chosen)
    with open_session(settings, home, {}, Silence()) as session:
        reset(session)
        with session.sole_optimizer() as journal:
            brought = bring(session, chosen_workload(session))
            if workload == "genesis":
                # half of the capacity that stock has with all of its connections, the same for every cell
                brought = replace(brought, offer=same_offer(home, brought))
            observer = Observer(session)
            with open_workbench(session, journal, observer, brought.offer, is_offline=True) as workbench:
                round_seconds = measured_round(workbench, brought)
                plan = plan_for(session, arguments.minutes * 60, round_seconds=round_seconds)
                yield Bench(session, workbench, brought, plan)
        reset(session)


def same_offer(home, brought):
    """Return the offer of the first cell: what is offered must not hang on the moment at which it was measured."""
    file = home.state / "offer.json"
    if file.exists():
        rate = json.loads(file.read_text())["rate_per_second"]
        return replace(brought.offer, plan=replace(brought.offer.plan, rate_per_second=rate))
    file.write_text(json.dumps({"rate_per_second": brought.offer.plan.rate_per_second}))
    return brought.offer


def reset(session: Session) -> None:
    """Put stock back, and the tables in order."""
    with psycopg.connect(session.connection.dsn_for_driver(), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM RESET ALL")
    session.target.restart({})
    with psycopg.connect(session.connection.dsn_for_driver(), autocommit=True) as connection:
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")


def searched(bench: Bench, method: str, seed: int, seconds: float, folder: Path) -> tuple[Configuration, list[dict]]:
    """Search for `seconds`, and return what the method ends with and when it knew of what."""
    if method == "stock":
        return bench.initial, []
    if method == "rules":
        return bench.workbench.ground.advised(bench.initial), []
    if method in ("unproven", "ours"):
        return ours(bench, seconds, prove=method == "ours")
    first = bench.space.parameters(bench.initial)
    asking = peer(method, bench.space.distributions, first, seed=seed, folder=str(folder))
    return by_peer(bench, asking, seconds)


def ours(bench: Bench, seconds: float, *, prove: bool) -> tuple[Configuration, list[dict]]:
    """Tune as `genesis-pg tune` does, or with all of the time for its search."""
    begun = time.monotonic()
    tuned = tune_on(bench.session, bench.workbench, bench.brought, seconds, prove=prove)
    known, log_ratio = [], 0.0
    started = tuned.trials[0].started_at if tuned.trials else None
    for trial in tuned.trials:
        log_ratio += math.log(trial.verdict.ratio) if trial.verdict.outcome.stays else 0.0
        at = (trial.ended_at - started).total_seconds()
        known.append({"seconds": at, "best_log_ratio": log_ratio, "outcome": str(trial.verdict.outcome)})
    proof = f", proof: {tuned.proof.verdict.outcome}" if tuned.proof else ""
    print(f"    {len(tuned.trials)} trials in {time.monotonic() - begun:.0f} s{proof}", flush=True)
    return tuned.in_force if prove else tuned.best, known


def by_peer(bench: Bench, asking, seconds: float) -> tuple[Configuration, list[dict]]:
    """Let a peer ask for one configuration after the other."""
    begun = time.monotonic()
    reference = bench.measure()
    best, least, known = bench.initial, math.inf, []
    while time.monotonic() - begun < seconds:
        parameters = asking.ask()
        configuration = bench.space.configuration(parameters, bench.initial)
        try:
            loss = bench.loss(configuration, reference)
        except TargetError as error:
            print(f"    failed: {error.what}", flush=True)
            loss = _REFUSED_LOG_LOSS
        asking.tell(parameters, loss)
        if loss < least:
            best, least = configuration, loss
        known.append({"seconds": time.monotonic() - begun, "best_log_ratio": least, "log_ratio": loss})
    print(f"    {len(known)} configurations in {time.monotonic() - begun:.0f} s", flush=True)
    return best, known


def compared(bench: Bench, final: Configuration, pairs: int, least_seconds: float) -> dict[str, object]:
    """Measure the final configuration beside stock, each block after a restart; a ratio above 1 is a faster final."""
    if final == bench.initial:
        return {"speed_up": 1.0, "low": 1.0, "high": 1.0, "pairs": 0, "is_stock": True}
    never = Thresholds(min_pairs=pairs + 1)
    seconds = max(bench.plan.block_seconds, least_seconds)
    plan = replace(bench.plan, guards=NO_GUARDS, thresholds=never, max_pairs=pairs, block_seconds=seconds)
    proposal = Proposal(final, "user", "the final configuration against stock")
    trial = bench.workbench.laboratory.hold(bench.initial, proposal, plan, design=Design.RESTART)
    ratios = sorted(pair.baseline_seconds / pair.candidate_seconds for pair in trial.verdict.pairs)
    low, high = median_interval(ratios)
    return {
        "speed_up": median(ratios),
        "low": low,
        "high": high,
        "pairs": len(ratios),
        "compared_seconds": seconds,
        "ratios": ratios,
        "errors": [trial.figures.get(f"{arm}_error_ratio") for arm in ("baseline", "candidate")],
    }


def median_interval(ratios: list[float], level: float = 0.95) -> tuple[float, float]:
    """Return the narrowest interval of order statistics that holds the median with at least `level`."""
    count = len(ratios)
    for drop in range(count // 2, -1, -1):
        if 1 - 2 * binom.cdf(drop - 1, count, 0.5) >= level:
            return ratios[drop], ratios[-1 - drop]
    return ratios[0], ratios[-1]


def cell(home: Home, method: str, workload: str, seed: int, arguments: argparse.Namespace) -> dict[str, object]:
    """Measure one cell."""
    shutil.rmtree(home.state / "servers", ignore_errors=True)  # nothing is known from the cell before
    with tempfile.TemporaryDirectory() as folder, bench_on(home, workload, arguments, seed) as bench:
        load_before = os.getloadavg()[0]
        final, known = searched(bench, method, seed, arguments.minutes * 60, Path(folder))
        with psycopg.connect(bench.session.connection.dsn_for_driver(), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM RESET ALL")
        bench._restart()
        result = compared(bench, final, arguments.pairs, arguments.compared_seconds)
        changes = final.difference(bench.initial)
        return {
            "method": method,
            "workload": workload,
            "seed": seed,
            "minutes": arguments.minutes,
            "block_seconds": bench.plan.block_seconds,
            "knobs": len(bench.space.knobs),
            "load_average_before": load_before,
            **result,
            "changes": {name: [old, new] for name, (old, new) in changes.items() if _differs(old, new)},
            "known": known,
        }


def _differs(old: object, new: object) -> bool:
    return not (isinstance(old, int | float) and isinstance(new, int | float) and same_value(old, new, "real"))


def show(cells: list[dict[str, object]]) -> None:
    """Print the table of all cells, and the geometric mean of each method."""
    for each in sorted(
        cells, key=lambda each: (str(each["workload"]), METHODS.index(str(each["method"])), each["seed"])
    ):
        trials = len(each["known"])
        print(
            f"{each['workload']:<9} {each['method']:<7} seed {each['seed']}  {each['speed_up']:6.2f} "
            f"({each['low']:.2f} to {each['high']:.2f})  {trials:3d} trials{most_of_gain(each)}"
        )
    print()
    for method in METHODS:
        logs = [
            [math.log(float(str(each["speed_up"]))) for each in cells if _is(each, method, workload)]
            for workload in WORKLOADS
        ]
        if all(logs):
            print(f"{method:<7} geometric mean {math.exp(fmean(fmean(each) for each in logs)):.3f}")


def most_of_gain(each: dict[str, object]) -> str:
    """Say after which share of the time the method knew of 90 % of what it thought to have gained at the end."""
    known, seconds = each["known"], 60 * float(str(each["minutes"]))
    if not known or not known[-1]["best_log_ratio"] < 0:
        return ""
    enough = 0.9 * known[-1]["best_log_ratio"]
    first = next(one["seconds"] for one in known if one["best_log_ratio"] <= enough)
    return f", 90 % of the gain it thought of after {first / seconds:.0%} of the time"


def _order(each: dict[str, object]) -> tuple[str, int, object]:
    return str(each["workload"]), METHODS.index(str(each["method"])), each["seed"]


def _is(each: dict[str, object], method: str, workload: str) -> bool:
    return (each["method"], each["workload"]) == (method, workload)


def cells_wanted(arguments: argparse.Namespace) -> Iterator[tuple[str, str, int]]:
    """Yield every cell, seed by seed, so that what is there first compares all methods."""
    for seed, workload, method in product(arguments.seeds, arguments.workloads, arguments.methods):
        if method in SEARCHING or seed == arguments.seeds[0]:
            yield method, workload, seed


def main() -> None:
    """Measure the cells that are still to be measured, store and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="of search")
    parser.add_argument("--pairs", type=int, default=10, help="of the comparison at the end")
    parser.add_argument("--compared-seconds", type=float, default=15.0, help="of a block of the comparison, at least")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--workloads", nargs="+", default=list(WORKLOADS), choices=WORKLOADS)
    parser.add_argument("--scale", type=float, default=None, help="of the tables, instead of the workload's own")
    parser.add_argument("--most", type=int, default=None, help="cells to measure now")
    parser.add_argument("--folder", type=Path, default=None, help="for the servers, kept for the next time")
    arguments = parser.parse_args()
    arguments.scales = dict.fromkeys(WORKLOADS, arguments.scale)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    RESULT.parent.mkdir(exist_ok=True)
    cells = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else []
    there = {(each["method"], each["workload"], each["seed"]) for each in cells}
    wanted = [each for each in cells_wanted(arguments) if each not in there][: arguments.most]
    with folder_of(arguments.folder) as folder:
        for method, workload, seed in wanted:
            print(f"{time.strftime('%H:%M')} {workload} {method} seed {seed}", flush=True)
            home = Home(folder / workload, folder / workload / "logs")
            cells.append(cell(home, method, workload, seed, arguments))
            RESULT.write_text(json.dumps(cells, indent=1) + "\n", encoding="utf-8")
            show(cells[-1:])
    show(cells)


@contextmanager
def folder_of(named: Path | None) -> Iterator[Path]:
    """Yield the folder for the servers: the one named, else one that goes with us."""
    if named is not None:
        named.mkdir(parents=True, exist_ok=True)
        yield named
        return
    with tempfile.TemporaryDirectory(prefix="genesis-benchmark-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


if __name__ == "__main__":
    run_benchmark(main)
