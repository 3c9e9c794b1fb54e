"""Mixes and plans refuse nonsense in words, and split over processes without losing anything."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.workload import LEVELS, SOAK_MIX, LoadPlan, OperationKind, OperationMix
from ml_postgres_optimization.workload.generator.child import check_picklable, failure_at_start
from ml_postgres_optimization.workload.generator.shares import shares_of, usable_cores
from ml_postgres_optimization.workload.process.messages import Failure

NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    "weights",
    [
        {},
        {OperationKind.READ: 0},
        {OperationKind.READ: -1, OperationKind.WRITE: 2},
        {OperationKind.READ: NAN},
        {OperationKind.READ: INFINITY},
        {"teleport": 1},
    ],
)
def test_a_mix_that_makes_no_sense_is_refused(weights):
    with pytest.raises(UsageError):
        OperationMix(weights)


def test_the_specifications_mixes_are_whole():
    for mix in (SOAK_MIX, *(level.mix for level in LEVELS.values())):
        assert sum(mix.weights.values()) == 100


@given(st.dictionaries(st.sampled_from(OperationKind), st.floats(0, 1e300), min_size=1))
def test_shares_add_up_to_one(weights):
    if not any(weights.values()):
        with pytest.raises(UsageError):
            OperationMix(weights)
        return
    mix = OperationMix(weights)
    assert sum(mix.shares) == pytest.approx(1.0)
    assert len(mix.shares) == len(OperationKind)
    assert set(mix.kinds) == {kind for kind, weight in weights.items() if weight > 0}


@pytest.mark.parametrize(
    "wrong",
    [
        {"rate_per_second": -1.0},
        {"rate_per_second": NAN},
        {"rate_per_second": INFINITY},
        {"rate_per_second": "fast"},
        {"connections": 0},
        {"connections": -3},
        {"connections": 10_001},
        {"connections": None},
        {"connections": 2.5},
        {"connections": True},
        {"clients": 0},
        {"seed": -1},
        {"processes": 0},
        {"key_count": 0},
        {"zipf_exponent": -0.5},
        {"zipf_exponent": NAN},
        {"queue_limit": 0},
        {"drain_seconds": -1},
        {"rate_shape": lambda seconds: -1.0},
    ],
    ids=lambda wrong: "-".join(f"{name}={value}" for name, value in wrong.items() if not callable(value)) or "shape",
)
def test_a_plan_that_makes_no_sense_is_refused_and_the_value_is_named(wrong):
    with pytest.raises(UsageError) as refused:
        LoadPlan(SOAK_MIX, **wrong)
    assert next(iter(wrong)).split(" ")[0] in refused.value.what


@pytest.mark.parametrize(
    ("plan", "cores", "started", "active"),
    [
        ({"rate_per_second": 3_000}, 8, 2, 1),
        ({"rate_per_second": 0}, 8, 2, 1),
        ({"rate_per_second": 12_000}, 8, 4, 3),
        ({"rate_per_second": 90_000}, 2, 2, 2),
        ({"rate_per_second": 3_000}, 1, 1, 1),
        ({}, 4, 4, 4),
        ({}, 1, 1, 1),
        ({"processes": 16}, 4, 4, 4),
        ({"processes": 2, "rate_per_second": 10}, 4, 2, 2),
        ({"connections": 3}, 64, 3, 3),
        ({"connections": 1, "rate_per_second": 12_000}, 8, 1, 1),
        ({"connections": 2, "processes": 4}, 8, 2, 2),
        ({"processes": 3, "rate_per_second": 10, "schedule_start_seconds": 1.0}, 1, 3, 3),
    ],
    ids=str,
)
def test_processes_are_as_few_as_the_rate_needs_and_never_more_than_cores_or_connections(
    plan, cores, started, active
):
    plan = LoadPlan(SOAK_MIX, **plan)
    assert plan.process_count(cores=cores) == started
    assert plan.active_count(started) == active


@pytest.mark.parametrize(
    ("quota", "cores"), [("200000 100000", 2), ("250000 100000", 2), ("50000 100000", 1), ("max 100000", 64)]
)
def test_cores_are_no_more_than_the_control_groups_quota_pays_for(quota, cores, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(64)))
    group = tmp_path / "sys/fs/cgroup/pod"
    group.mkdir(parents=True)
    (group / "cpu.max").write_text(quota)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/pod\n")
    assert usable_cores(proc=tmp_path / "proc", sys=tmp_path / "sys") == cores


@given(
    connections=st.integers(1, 500),
    clients=st.integers(1, 10_000),
    rate=st.one_of(st.none(), st.floats(0, 1e6)),
    processes=st.integers(1, 64),
    ceiling=st.one_of(st.none(), st.integers(1, 200)),
)
def test_shares_add_up_to_the_plan(connections, clients, rate, processes, ceiling):
    plan = LoadPlan(SOAK_MIX, rate_per_second=rate, connections=connections, clients=clients, ceiling=ceiling)
    shares = shares_of(plan, processes)
    assert sum(share.connections for share in shares) == connections
    assert sum(share.clients for share in shares) == clients
    active = shares[: plan.active_count(processes)]
    assert max(share.connections for share in active) - min(share.connections for share in active) <= 1
    serving = [share.ceiling for share in active if share.connections]
    assert (sum(serving) == max(ceiling, len(serving))) if ceiling else set(serving) == {None}
    if rate is not None:
        assert sum(share.rate_per_second for share in shares) == pytest.approx(rate)
    for share in shares:
        if not share.connections:
            assert not share.clients
            assert not share.rate_per_second


def test_a_rate_shape_that_another_process_cannot_import_is_refused():
    with pytest.raises(UsageError, match="cannot be sent"):
        check_picklable(LoadPlan(SOAK_MIX, rate_per_second=1, rate_shape=lambda seconds: 1.0))
    check_picklable(LoadPlan(SOAK_MIX, rate_per_second=1))


@pytest.mark.parametrize(
    ("sqlstate", "exit_code"), [("08001", 3), ("57P03", 3), ("28P01", 3), ("42501", 3), ("53300", 2), ("", 3)]
)
def test_a_failure_at_the_start_has_its_exit_code(sqlstate, exit_code):
    assert failure_at_start(Failure("it went wrong", sqlstate)).exit_code == exit_code


def test_a_plan_never_shows_a_password():
    from ml_postgres_optimization.workload.process.messages import Assignment

    plan = LoadPlan(SOAK_MIX)
    assignment = Assignment(0, {"password": "tell-nobody"}, plan, shares_of(plan, 1)[0], 10, 10, 0.99)
    assert "tell-nobody" not in repr(assignment)
