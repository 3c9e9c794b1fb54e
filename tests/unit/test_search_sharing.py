"""Studies that several share, that other versions made, and that serve another load."""

import math
import multiprocessing
import os
from dataclasses import replace
from datetime import UTC, datetime

import optuna
import pytest
from optuna.storages import InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from ml_postgres_optimization.errors import StateError
from ml_postgres_optimization.knobs.catalogue import load_catalogue
from ml_postgres_optimization.knobs.configuration import CONCURRENCY, Configuration
from ml_postgres_optimization.knobs.machine import Machine
from ml_postgres_optimization.models.features import LoadContext
from ml_postgres_optimization.trials import Outcome, Pair, Proposal, Trial, Verdict
from ml_postgres_optimization.tuning import ForestSampler, SearchSpace, TuningStudy
from ml_postgres_optimization.tuning.search import context_of, likeness

NAMES = ("work_mem", "jit", "jit_above_cost", "wal_compression", CONCURRENCY)
SPACE = SearchSpace.of(load_catalogue(), names=NAMES)
STOCK = Configuration(
    {"work_mem": 4096, "jit": True, "jit_above_cost": 100_000.0, "wal_compression": "off", CONCURRENCY: 60}
)
START = datetime(2026, 1, 1, tzinfo=UTC)
READS = context_of(LoadContext(100.0, {"read": 1.0}))
MORE_READS = context_of(LoadContext(130.0, {"read": 0.9, "write": 0.1}))
WRITES = context_of(LoadContext(2000.0, {"write": 1.0}))


@pytest.fixture(autouse=True)
def _quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def opened(where, *, workload="w", initial=STOCK, space=SPACE, seed=1, startup_trials=4, **arguments):
    sampler = ForestSampler(
        seed=seed, choice_weights=space.choice_weights, idle=space.idle, startup_trials=startup_trials
    )
    return TuningStudy.open(where, workload=workload, space=space, initial=initial, sampler=sampler, **arguments)


def held(candidate, ratio, outcome=Outcome.EQUIVALENT, **figures):
    verdict = Verdict(outcome, ratio, ratio * 0.9, ratio * 1.1, (Pair(1.0, ratio, True),))
    return Trial("t", STOCK, Proposal(candidate, "forest", "why"), verdict, START, START, figures)


def ratio_of(configuration):
    return math.exp(0.3 * abs(math.log(configuration[CONCURRENCY] / 8)) - 0.3 * math.log(60 / 8))


def search(study, trials):
    """Hold trials on a made-up server on which 8 connections are best; return what was asked for."""
    asked = []
    for _ in range(trials):
        one = study.ask(STOCK)
        study.tell(held(one.configuration, ratio_of(one.configuration)), one)
        asked.append(one)
    return asked


# ---- several at the same time --------------------------------------------------------------------------------------


def work(path, worker, trials):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    search(opened(JournalStorage(JournalFileBackend(path)), worker=worker), trials)


def test_two_processes_share_a_study_and_never_try_the_same(tmp_path):
    path = str(tmp_path / "shared.journal")
    opened(JournalStorage(JournalFileBackend(path)))
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=work, args=(path, worker, 6)) for worker in ("first", "second")]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    (name,) = optuna.get_all_study_names(JournalStorage(JournalFileBackend(path)))
    trials = optuna.load_study(study_name=name, storage=JournalStorage(JournalFileBackend(path))).trials
    # where both came up with the same in the same moment, one or both have thought again
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.FAIL}
    asked = [trial for trial in trials if trial.state is TrialState.COMPLETE and "worker" in trial.user_attrs]
    workers = [trial.user_attrs["worker"] for trial in asked]
    assert (workers.count("first"), workers.count("second")) == (6, 6)
    assert len({tuple(sorted(trial.params.items())) for trial in asked}) == 12


def test_a_worker_that_comes_again_leaves_what_others_try_alone():
    storage = InMemoryStorage()
    first, second = opened(storage, worker="first"), opened(storage, worker="second")
    first.ask(STOCK)
    running = second.ask(STOCK)
    again = opened(storage, worker="first")
    assert [trial.state for trial in again.study.trials[-2:]] == [TrialState.FAIL, TrialState.RUNNING]
    second.tell(held(running.configuration, 0.9), running)
    assert again.study.trials[-1].value == pytest.approx(math.log(0.9))


def test_what_runs_elsewhere_is_not_proposed_again():
    study = opened(None)
    search(study, 6)
    asked = [study.ask(STOCK) for _ in range(12)]
    assert len({one.configuration for one in asked}) == 12


def test_a_study_can_lie_in_a_database(tmp_path):
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    search(opened(url), 3)
    assert len(opened(url).study.trials) == 4


# ---- what cannot be used -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("written", [99, "of the future"])
def test_a_study_of_a_later_version_is_refused_and_left_as_it_is(written):
    storage = InMemoryStorage()
    study = opened(storage)
    study.study.set_user_attr("format", written)
    before = study.study.trials
    with pytest.raises(StateError, match=rf"format {written}.*\n.*Install"):
        opened(storage)
    (name,) = optuna.get_all_study_names(storage)
    assert name == study.study.study_name
    assert study.study.trials == before


def test_a_study_of_the_version_before_is_taken_up():
    storage = InMemoryStorage()
    study = opened(storage)
    search(study, 2)
    old = optuna.create_study(storage=InMemoryStorage(), study_name=study.study.study_name)
    old.set_user_attr("ranges", study.study.user_attrs["ranges"])
    old.add_trials(study.study.trials)
    # the storage of the copy, which says nothing of a format
    again = opened(old._storage)
    assert len(again.study.trials) == 3


def test_a_study_that_is_not_ours_is_refused():
    storage = InMemoryStorage()
    foreign = optuna.create_study(storage=storage, study_name=opened(storage).study.study_name + "x")
    foreign.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(StateError, match="not made by this program"):
        opened(storage)


@pytest.mark.parametrize("where", ["nonsense://", "sqlite:////nowhere/at/all.db"])
def test_a_storage_that_cannot_be_used_is_said_without_its_password(where):
    with pytest.raises(StateError) as raised:
        opened(where)
    assert len(str(raised.value).splitlines()) == 2


def test_a_study_is_for_us_alone_whatever_the_umask_is(tmp_path):
    before = os.umask(0)
    try:
        opened(tmp_path / "studies")
    finally:
        os.umask(before)
    assert (tmp_path / "studies").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "studies" / "study.journal").stat().st_mode & 0o777 == 0o600


def test_what_optuna_takes_for_impossible_is_said(tmp_path):
    opened(tmp_path)
    with (tmp_path / "study.journal").open("a") as file:
        file.write('{"op_code": 99, "worker_id": "x"}\n')
    with pytest.raises(StateError, match="cannot be used"):
        opened(tmp_path)


def test_a_journal_that_is_broken_is_said(tmp_path):
    opened(tmp_path)
    (tmp_path / "study.journal").write_text("not JSON at all\n{}\n")
    with pytest.raises(StateError, match="cannot be used"):
        opened(tmp_path)


# ---- other loads ---------------------------------------------------------------------------------------------------


def test_what_was_best_under_a_similar_load_is_tried_first():
    storage = InMemoryStorage()
    before = opened(storage, workload="before")
    before.transfer(READS)
    search(before, 15)
    best = min(before.study.trials, key=lambda trial: trial.value)
    later = opened(storage, workload="later")
    assert later.transfer(MORE_READS) == 16
    asked = later.ask(STOCK)
    assert "similar load" in asked.reason
    assert asked.configuration[CONCURRENCY] == best.params[CONCURRENCY]
    assert later.expected_gain(STOCK) is None, "others are waiting"


def test_a_dissimilar_load_teaches_nothing():
    storage = InMemoryStorage()
    before = opened(storage, workload="before")
    before.transfer(READS)
    search(before, 8)
    later, alone = opened(storage, workload="later"), opened(None, workload="later")
    assert later.transfer(WRITES) == 0
    alone.transfer(WRITES)
    ours, theirs = ([one.configuration for one in search(study, 8)] for study in (later, alone))
    assert ours == theirs


def test_a_study_that_has_begun_is_not_begun_again():
    storage = InMemoryStorage()
    before = opened(storage, workload="before")
    before.transfer(READS)
    search(before, 8)
    later = opened(storage, workload="later")
    search(later, 2)
    later.transfer(READS)
    assert "similar load" not in later.ask(STOCK).reason


def test_knobs_and_values_that_this_server_lacks_are_passed_over(tmp_path):
    before = opened(tmp_path / "other", workload="before", initial=STOCK.replaced({"wal_compression": "zstd"}))
    before.transfer(READS)
    search(before, 10)
    knobs = {name: knob for name, knob in SPACE.knobs.items() if not name.startswith("jit")}
    knobs["wal_compression"] = replace(knobs["wal_compression"], choices=("off", "pglz"))
    knobs["work_mem"] = replace(knobs["work_mem"], maximum=8192.0)
    here = Configuration({"work_mem": 4096, "wal_compression": "pglz", CONCURRENCY: 60})
    later = opened(
        None,
        workload="later",
        initial=here,
        space=SearchSpace(knobs),
        elsewhere=[tmp_path / "other", tmp_path / "no"],
    )
    assert later.transfer(READS) == 11
    for one in search(later, 6):
        assert one.configuration["work_mem"] <= 8192
        assert one.configuration["wal_compression"] in {"off", "pglz"}
    assert not (tmp_path / "no").exists()


def test_studies_elsewhere_that_cannot_be_read_are_named_and_stop_nobody(tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "study.journal").write_text("not JSON at all\n{}\n")
    newer = opened(tmp_path / "newer", workload="newer")
    newer.study.set_user_attr("format", 99)
    study = opened(None, elsewhere=[broken, tmp_path / "newer"])
    assert study.transfer(READS) == 0
    assert [str(broken) in study.unreadable[0], "format 99" in study.unreadable[1]] == [True, True]


def test_an_interrupted_study_that_learned_from_others_goes_on_as_if_it_had_not_been(tmp_path):
    before = opened(tmp_path, workload="before")
    before.transfer(READS)
    search(before, 8)
    whole = opened(tmp_path, workload="whole")
    whole.transfer(MORE_READS)
    expected = [one.configuration for one in search(whole, 9)]
    storage = InMemoryStorage()
    copy = optuna.create_study(storage=storage, study_name=whole.study.study_name)
    for name, value in whole.study.user_attrs.items():
        copy.set_user_attr(name, value)
    copy.add_trials(whole.study.trials[:6])
    again = opened(storage, workload="whole", elsewhere=[_without(tmp_path, whole, before)])
    again.transfer(MORE_READS)
    assert [one.configuration for one in search(again, 4)] == expected[5:]


def _without(folder, left_out, kept):
    """Return a storage with one study of the folder only."""
    storage = InMemoryStorage()
    copy = optuna.create_study(storage=storage, study_name=kept.study.study_name)
    for name, value in kept.study.user_attrs.items():
        copy.set_user_attr(name, value)
    copy.add_trials(kept.study.trials)
    assert left_out.study.study_name != copy.study_name
    return storage


def test_contexts_are_alike_as_loads_and_machines_are():
    small = Machine(2**33, "RAM", 4.0, True, rotational_disk=False)
    large = Machine(2**38, "RAM", 64.0, True, rotational_disk=False)
    assert likeness(READS, READS) > likeness(READS, MORE_READS) > 0.4
    assert likeness(READS, WRITES) < 0.01
    on_small, on_large = (context_of(LoadContext(100.0, {"read": 1.0}), machine) for machine in (small, large))
    assert likeness(on_small, on_small) == 1.0
    assert likeness(on_small, on_large) < 0.05
    assert likeness(on_small, context_of(None, replace(small, rotational_disk=True))) < 0.3
    assert likeness({}, READS) == pytest.approx(0.49)


def test_a_context_has_finite_numbers_only():
    closed_loop = context_of(LoadContext(math.nan, {}), Machine(2**33, "given", 4.0, False))
    assert set(closed_loop) == {"machine.log2_cpus", "machine.log2_memory_bytes"}


# ---- what comes of a trial -----------------------------------------------------------------------------------------


def test_what_was_refused_or_aborted_or_failed_is_remembered_as_a_violation():
    study = opened(None)
    refused = study.ask(STOCK)
    study.refuse(refused, "too much memory")
    aborted, failing, well = (study.ask(STOCK) for _ in range(3))
    study.tell(held(aborted.configuration, 0.9, Outcome.ABORTED), aborted)
    errors = {"baseline_error_ratio": 0.001, "candidate_error_ratio": 0.006}
    study.tell(held(failing.configuration, 0.9, **errors), failing)
    study.tell(held(well.configuration, 0.9), well)
    noted = [trial.user_attrs["violation"] for trial in study.study.trials[1:]]
    assert noted == pytest.approx([1.0, 1.0, 0.5, 0.0])


def test_what_was_in_force_already_is_refused_without_a_violation():
    study = opened(None)
    study.enqueue([STOCK.replaced({CONCURRENCY: 10})], reason="once")
    asked = study.ask(STOCK.replaced({CONCURRENCY: 10}))
    study.refuse(asked, "it is in force already")
    assert study.study.trials[-1].user_attrs["violation"] == 0.0


def test_expectations_are_written_down_and_sink_as_they_do_not_come_true():
    study = opened(None, startup_trials=2)
    assert study.expected_gain(STOCK) is None
    gains = []
    for _ in range(25):
        one = study.ask(STOCK)
        study.tell(held(one.configuration, 1.0 + 0.02 * (one.trial.number % 2)), one)
        gains.append(study.expected_gain(STOCK))
    noted = [trial.user_attrs.get("expected_gain") for trial in study.study.trials]
    assert sum(gain is not None for gain in noted) > 15
    assert gains[-1] < 0.005
