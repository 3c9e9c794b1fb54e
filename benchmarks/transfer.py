"""How many trials a study saves that learns from those of other loads, and how long an ask takes.

The simulated server's response surface (`target/simulated/surface.py`) with 20 knobs, 8 of which matter; a trial's
ratio carries noise of 3 %, and what it shows to be better is gone on with. A load shifts the best value of every
number, or turns the surface round. A study of 40 trials is stored first, then one searches the load of interest:

``alone``           without any other study
``repeat``          the stored study is of the same load
``similar``         of a load at 1.4 times less, whose best values lie at two thirds of ours
``dissimilar``      of other operations at an eighth of the rate, on a surface that is turned round
``deceptive``       on the surface that is turned round, but of a load that looks like ours

Counted are the trials until the first that is truly as good as 90 % of the whole gain.

    python benchmarks/transfer.py --seeds 12
"""

import argparse
import json
import math
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import optuna
from numpy.random import Generator
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import create_trial

from ml_postgres_optimization.knobs.catalogue import load_catalogue
from ml_postgres_optimization.knobs.configuration import CONCURRENCY, Configuration
from ml_postgres_optimization.models.features import LoadContext
from ml_postgres_optimization.target.simulated import latency_seconds
from ml_postgres_optimization.trials import Outcome, Pair, Proposal, Trial, Verdict
from ml_postgres_optimization.tuning import ForestSampler, SearchSpace, TuningStudy
from ml_postgres_optimization.tuning.search import context_of

RESULT = Path(__file__).resolve().parent / "results" / "transfer.json"
NOISE = 0.03
WHOLE_GAIN_RATIO = 0.9
GOAL_ASK_SECONDS = 0.5
STOCK = Configuration(
    {
        CONCURRENCY: 40,
        "work_mem": 4096,
        "max_wal_size": 1024,
        "checkpoint_timeout": 300,
        "random_page_cost": 4.0,
        "effective_io_concurrency": 1,
        "autovacuum_vacuum_cost_limit": 200,
        "jit": True,
        # these do nothing, and the search does not know
        "backend_flush_after": 0,
        "bgwriter_delay": 200,
        "bgwriter_lru_maxpages": 100,
        "bgwriter_lru_multiplier": 2.0,
        "checkpoint_completion_target": 0.9,
        "commit_delay": 0,
        "commit_siblings": 5,
        "default_statistics_target": 100,
        "effective_cache_size": 524_288,
        "hash_mem_multiplier": 2.0,
        "jit_above_cost": 100_000.0,
        "maintenance_work_mem": 65_536,
    }
)
SPACE = SearchSpace.of(load_catalogue(), names=tuple(STOCK))
START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Load:
    """A load of a simulated server.

    Parameters
    ----------
    rate_per_second, read_share : float
        What it looks like.
    shift : float
        By which the best value of every number is multiplied.
    is_turned : bool
        Whether what was high is low, and what was on is off.
    """

    rate_per_second: float
    read_share: float
    shift: float = 1.0
    is_turned: bool = False

    @property
    def context(self) -> dict[str, float]:
        """What a study is told of it."""
        mix = {"read": self.read_share, "write": 1.0 - self.read_share}
        return context_of(LoadContext(self.rate_per_second, mix))

    def log_latency(self, configuration: Configuration) -> float:
        """Return the log of the mean latency, without noise."""
        seen = {name: self._seen(name, value) for name, value in configuration.items()}
        return math.log(latency_seconds(seen, max(1, round(seen[CONCURRENCY]))))

    def _seen(self, name: str, value: bool | float) -> bool | float:
        if isinstance(value, bool):
            return value != self.is_turned
        if name not in SPACE.knobs:
            return value
        knob = SPACE.knobs[name]
        if value in knob.special_values or not knob.minimum:
            return value
        return knob.minimum * knob.maximum / value if self.is_turned else value / self.shift


OURS = Load(1400.0, 0.8, shift=1.5)
STORED = {
    "alone": None,
    "repeat": OURS,
    "similar": Load(1000.0, 0.8),
    "dissimilar": Load(175.0, 0.1, is_turned=True),
    "deceptive": Load(1400.0, 0.8, is_turned=True),
}


def study_of(storage: BaseStorage, name: str, load: Load, seed: int) -> TuningStudy:
    """Open a study of `load`, and let it learn from what is in the storage."""
    sampler = ForestSampler(seed=seed, choice_weights=SPACE.choice_weights, idle=SPACE.idle)
    study = TuningStudy.open(storage, workload=name, space=SPACE, initial=STOCK, sampler=sampler)
    study.transfer(load.context)
    return study


class Search:
    """A study at work: what is measured to be better is in force from then on, as in `tune`."""

    def __init__(self, study: TuningStudy, load: Load, rng: Generator) -> None:
        self._study, self._load, self._rng = study, load, rng
        self._incumbent = STOCK

    def gain_of_next(self) -> float:
        """Hold the next trial, and return what its candidate truly gains over stock, as a log ratio."""
        over, asked = self._incumbent, self._study.ask(self._incumbent)
        latency = self._load.log_latency(asked.configuration)
        ratio = math.exp(NOISE * self._rng.standard_normal() + latency - self._load.log_latency(over))
        outcome = Outcome.PREFERRED if ratio < 1 else Outcome.REJECTED
        verdict = Verdict(outcome, ratio, 0.0, math.inf, (Pair(1.0, ratio, True),))
        proposal = Proposal(asked.configuration, "forest", asked.reason)
        self._study.tell(Trial("t", over, proposal, verdict, START, START), asked)
        if outcome.stays:
            self._incumbent = asked.configuration
        return self._load.log_latency(STOCK) - latency


def whole_gain(load: Load) -> float:
    """Return the gain of the best configuration, each knob for itself, as they do not depend on each other."""
    best = STOCK
    for name, axis in SPACE.axes.items():
        if name in SPACE.knobs:
            best = min((best.replaced({name: level}) for level in axis.levels), key=load.log_latency)
    return load.log_latency(STOCK) - load.log_latency(best)


def trials_needed(stored: Load | None, stored_trials: int, most: int, seed: int) -> int:
    """Search after what was stored; return the trials until most of the gain is found, `most` + 1 where it is not."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage, rng, earlier_rng = InMemoryStorage(), *np.random.default_rng(seed).spawn(2)
    if stored:
        before = Search(study_of(storage, "before", stored, 1000 + seed), stored, earlier_rng)
        for _ in range(stored_trials):
            before.gain_of_next()
    search = Search(study_of(storage, "ours", OURS, seed), OURS, rng)
    enough = WHOLE_GAIN_RATIO * whole_gain(OURS)
    found = (number for number in range(1, most + 1) if search.gain_of_next() >= enough)
    return next(found, most + 1)


def ask_seconds(trials: int) -> list[float]:
    """Return the processor time that ask and tell take together after so many trials."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study, rng = study_of(InMemoryStorage(), "ours", OURS, 1), np.random.default_rng(1)
    for point in rng.random((trials, len(SPACE.axes))):
        configuration = SPACE.decode(point, STOCK)
        parameters, value = SPACE.parameters(configuration), OURS.log_latency(configuration)
        study.study.add_trial(create_trial(params=parameters, distributions=SPACE.distributions, value=value))
    search, spent = Search(study, OURS, rng), []
    for _ in range(15):
        began = time.process_time()
        search.gain_of_next()
        spent.append(time.process_time() - began)
    return spent


def main() -> None:
    """Search, store and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--stored-trials", type=int, default=40)
    parser.add_argument("--most-trials", type=int, default=60, help="after which a search is given up")
    parser.add_argument("--known-trials", type=int, default=200, help="when the time of an ask is taken")
    given = parser.parse_args()
    spent = ask_seconds(given.known_trials)
    needed = {}
    with ProcessPoolExecutor() as pool:
        for name, stored in STORED.items():
            run = partial(trials_needed, stored, given.stored_trials, given.most_trials)
            needed[name] = list(pool.map(run, range(given.seeds)))
            median = np.median(needed[name])
            print(f"{name:<12} median {median:>5.1f} trials to 90 % of the gain: {sorted(needed[name])}", flush=True)
    median = float(np.median(spent))
    print(
        f"ask and tell after {given.known_trials} trials of {len(SPACE.knobs)} knobs: median {median:.3f} s", end=", "
    )
    print(f"goal {GOAL_ASK_SECONDS} s: {'met' if median <= GOAL_ASK_SECONDS else 'MISSED'}")
    result = {
        "trials_needed": needed,
        "median": {name: float(np.median(trials)) for name, trials in needed.items()},
        "most_trials": given.most_trials,
        "ask_and_tell_seconds": spent,
        "cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg(),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
