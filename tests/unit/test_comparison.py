"""A comparison without a server: its order, its file, and what its blocks show."""

import json
import math
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from ml_postgres_optimization.comparison.arm import ABLATION, BASE, OPTIMISED, Part, arms
from ml_postgres_optimization.comparison.ledger import Ledger
from ml_postgres_optimization.comparison.measuring.block import BlockPlan, load_plan
from ml_postgres_optimization.comparison.measuring.faulting import calibrated, first_guess
from ml_postgres_optimization.comparison.measuring.figures import BlockFigures, figures_of
from ml_postgres_optimization.comparison.plan import ComparisonPlan
from ml_postgres_optimization.comparison.runner import run_comparison
from ml_postgres_optimization.comparison.terms import Terms
from ml_postgres_optimization.comparison.verdict import Finding, error_interval, judged
from ml_postgres_optimization.errors import StateError
from ml_postgres_optimization.interfaces.commands.benchmarking.tables import story_of, tables_of
from ml_postgres_optimization.telemetry import Histogram, LatencySample, SampleBatch
from ml_postgres_optimization.workload import LEVELS

ALL = tuple(LEVELS.values())
PLAN = ComparisonPlan(ALL, rounds=4)
TERMS = Terms(
    capacities_per_second=(900.0, 1000.0, 1100.0),
    capacity_per_second=1000.0,
    connections=90,
    configured_connections=20,
    faults={"HIGH": first_guess(600.0, 0.006)},
    calibrated_error_ratios={"HIGH": 0.006},
)


def block(mean_seconds=0.004, operations=1000, **more):
    response = Histogram.of(np.full(operations, mean_seconds))
    return BlockFigures(response=response, service=response, seconds=10.0, **more)


def rounds(level, **by_arm):
    """Blocks of one level, a list for each arm."""
    return {(number, level, arm): figures for arm, all_of in by_arm.items() for number, figures in enumerate(all_of)}


class Scene:
    """A server on which nothing takes time; it can be interrupted before a block."""

    def __init__(self, interrupted_before=None):
        self.log = []
        self.measured = 0
        self.interrupted_before = interrupted_before

    @contextmanager
    def in_force(self, is_configured):
        self.log.append(f"begin {is_configured}")
        try:
            yield
        finally:
            self.log.append(f"end {is_configured}")

    def measure(self, cell, arm, terms):
        if self.measured == self.interrupted_before:
            raise KeyboardInterrupt
        self.measured += 1
        self.log.append((cell.round, cell.level.name, arm.name))
        return block()


@pytest.mark.parametrize("level", ALL, ids=lambda level: level.name)
def test_the_arms_of_a_level_go_to_and_fro(level):
    orders = [cell.arms for cell in PLAN.cells() if cell.level == level]
    assert all(one == other[::-1] for one, other in pairwise(orders))
    assert [arm for cell_arms in orders[:2] for arm in (cell_arms[0], cell_arms[-1])] in (
        [BASE, OPTIMISED, OPTIMISED, BASE],
        [OPTIMISED, BASE, BASE, OPTIMISED],
    )


def test_no_two_cells_share_a_seed():
    seeds = [cell.seed for seed in (1, 2) for cell in ComparisonPlan(ALL, rounds=30, seed=seed).cells()]
    assert len(set(seeds)) == len(seeds)


def test_every_part_is_an_arm_by_itself_and_belongs_to_the_optimised_one():
    assert [arm.parts for arm in ABLATION] == [{part} for part in Part]
    assert OPTIMISED.parts == set(Part) and not BASE.parts
    assert arms(with_ablation=False) == (BASE, OPTIMISED)
    idle = frozenset({Part.PREVENTION})
    left = arms(with_ablation=True, idle=idle)
    assert "prevention only" not in {arm.name for arm in left}
    assert left[-1].name == OPTIMISED.name and left[-1].parts == set(Part) - idle
    assert ComparisonPlan(ALL, idle=idle).block_count == PLAN.rounds // 4 * 5 * len(ALL) * (len(PLAN.arms) - 1)


def test_what_is_due_does_not_hang_on_the_arm():
    """Those fields of the plan from which the client processes draw the schedule."""
    plans = [
        load_plan(
            BlockPlan(
                level=LEVELS["EXTREME"],
                arm=arm,
                seed=7,
                rate_per_second=9_000.0,
                connections=1 if arm.is_configured else 87,
                fewest_connections=1,
                warm_up_seconds=1.0,
                seconds=10.0,
            )
        )
        for arm in PLAN.arms
    ]
    assert len({(plan.seed, plan.rate_per_second, plan.processes, plan.zipf_exponent) for plan in plans}) == 1
    assert all(plan.connections % plan.processes == 0 for plan in plans)
    assert [(plan.retries is not None, plan.limiter is not None) for plan in plans] == [
        (False, False),
        (False, True),
        (True, False),
        (False, False),
        (False, False),
        (True, True),
    ]


def test_a_limiter_begins_where_a_forest_says_in_each_process_its_part():
    def limiter(limit, rate):
        block = BlockPlan(
            level=LEVELS["HIGH"],
            arm=OPTIMISED,
            seed=7,
            rate_per_second=rate,
            connections=40,
            warm_up_seconds=1.0,
            seconds=10.0,
            limit=limit,
        )
        plan = load_plan(block)
        return plan.processes, plan.limiter.initial, plan.limiter.most

    assert limiter(None, 100.0) == (1, 8, 1000)
    assert limiter(3, 100.0) == (1, 3, 1000)
    processes, initial, _ = limiter(12, 9_000.0)
    assert processes * initial == 12
    told = Terms.from_json(json.loads(json.dumps(replace(TERMS, limits={"HIGH": (3, 5)}).to_json())))
    assert [told.limit_of(LEVELS["HIGH"], is_configured=one) for one in (False, True)] == [3, 5]
    assert told.limit_of(LEVELS["BASIC"], is_configured=True) is None
    with pytest.raises(ValueError, match="0 connections"):
        Terms.from_json({**TERMS.to_json(), "limits": {"HIGH": [0, 5]}})


def test_the_configuration_changes_once_in_a_cell_and_is_put_back(tmp_path):
    scene = Scene()
    plan = ComparisonPlan(ALL[:2], rounds=2)
    run_comparison(plan, scene, Ledger(tmp_path / "ledger", {}), TERMS)
    assert scene.measured == plan.block_count
    begun = [entry for entry in scene.log if str(entry).startswith("begin")]
    # base, optimised, (optimised,) base, and where a round begins with the arm that the last one ended with, no more
    assert len(begun) == 6
    assert scene.log[-1].startswith("end")
    assert all(scene.log[i + 1].startswith("begin") for i, entry in enumerate(scene.log[:-1]) if "end" in entry)


def test_an_interrupted_comparison_goes_on_with_the_cell_that_is_not_complete(tmp_path):
    plan, path = ComparisonPlan(ALL[:2], rounds=2), tmp_path / "ledger"
    first = Scene(interrupted_before=8)
    ledger = Ledger(path, {"seed": 1})
    ledger.agree(TERMS)
    with pytest.raises(KeyboardInterrupt):
        run_comparison(plan, first, ledger, TERMS)
    assert first.log[-1].startswith("end"), "what was in force before was not put back"
    with path.open("ab") as file:
        file.write(b'{"block": [0, "MEDI')  # what a kill leaves
    again, second = Ledger(path, {"seed": 1}), Scene()
    assert again.terms == TERMS
    run_comparison(plan, second, again, TERMS)
    assert second.measured == plan.block_count - 6, "of 8 blocks 6 were a whole cell"
    assert Ledger(path, {"seed": 1}).blocks == again.blocks
    assert len(again.blocks) == plan.block_count


def test_blocks_of_another_request_are_not_gone_on_with_and_not_lost(tmp_path):
    path = tmp_path / "ledger.jsonl"
    Ledger(path, {"seed": 1}).add((0, "HIGH", "base"), block())
    other = Ledger(path, {"seed": 2})
    assert not other.blocks
    assert Ledger(other.set_aside, {"seed": 1}).blocks.keys() == {(0, "HIGH", "base")}
    assert Ledger.is_of(path, {"seed": 2}) and not Ledger.is_of(path, {"seed": 1})


@pytest.mark.parametrize("content", ["no JSON\n", "[]\n", "[" * 100_000 + "\n", '{"format": 2}\n', '{"format": 1}\n'])
def test_a_file_that_is_no_ledger_is_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "ledger"
    path.write_text(content)
    with pytest.raises(StateError, match="no ledger of ours"):
        Ledger(path, {})
    assert path.read_text() == content


def hostile_lines():
    figures, terms = block().to_json(), TERMS.to_json()
    figures = [{**figures, "errors": {"55P03": -1}}, {**figures, "seconds": math.nan}, {**figures, "errors": []}]
    terms = [{**terms, "connections": -3}, {**terms, "capacity_per_second": "fast"}, {**terms, "faults": [1]}]
    yield from ({"block": [0, "HIGH", "base"], "figures": one} for one in figures)
    yield from ({"terms": one} for one in terms)
    yield from ([1], 7, {"block": 3, "figures": {}})


@pytest.mark.parametrize("line", [*map(json.dumps, hostile_lines()), "[" * 100_000], ids=range(10))
def test_a_line_that_no_ledger_has_is_refused(tmp_path, line):
    path = tmp_path / "ledger"
    Ledger(path, {})
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(StateError, match="no ledger of ours"):
        Ledger(path, {})


def test_figures_are_the_same_from_json():
    figures = block(
        errors={"55P03": 3},
        retried={"40P01": 2},
        skipped_total=1,
        faults={"lock_stall": 4},
        faults_planned=6,
        faults_passed_over=2,
        concurrency_limits=(6, 7),
    )
    assert BlockFigures.from_json(json.loads(json.dumps(figures.to_json()))) == figures
    assert (figures.failed_total, figures.operations_total) == (4, 1001)
    assert figures.errors_before_retries == {"55P03": 3, "40P01": 2}


def test_an_operation_counts_by_when_it_was_due_however_late_it_ended():
    due = {"early": 0.9, "first": 1.0, "slow": 1.5, "late": 2.0}
    samples = [
        LatencySample(name, at, at + 0.1, at + (5.0 if name == "slow" else 0.2), None) for name, at in due.items()
    ]
    samples.append(LatencySample("lost", 1.7, 1.8, 1.9, "57P01"))
    figures = figures_of([SampleBatch.of(samples)], 1.0, 2.0, faults={}, cpu_ratio=0.1)
    assert figures.response.total == 3
    assert figures.response.sum_seconds == pytest.approx(0.2 + 5.0 + 0.2)
    assert figures.service.sum_seconds == pytest.approx(0.1 + 4.9 + 0.1)
    assert figures.errors == {"57P01": 1}


def test_a_target_is_met_only_where_the_interval_says_so_too():
    base = [block(0.0050), block(0.0052), block(0.0048), block(0.0051)]

    def found(ratios, failed=0, operations=50_000):
        faster = [
            block(one.response.mean_seconds * ratio, operations, errors={"55P03": failed})
            for one, ratio in zip(base, ratios, strict=True)
        ]
        level = judged(rounds("HIGH", base=base, optimised=faster), ["HIGH"], (BASE, OPTIMISED))[0]
        return level.latency, level.errors, level.is_met

    assert found([0.30, 0.31, 0.29, 0.30]) == (Finding.MET, Finding.MET, True)
    assert found([0.20, 0.60, 0.15, 0.45])[0] is Finding.UNDECIDED
    assert found([0.90, 0.91, 0.89, 0.90])[0] is Finding.MISSED
    assert found([0.3] * 4, failed=1, operations=1_100)[1] is Finding.UNDECIDED
    assert found([0.3] * 4, failed=100)[1] is Finding.MISSED


@pytest.mark.parametrize(
    ("level", "base_seconds", "seconds", "finding"),
    [
        ("MEDIUM", 0.0100, 0.0030, Finding.MET),
        ("MEDIUM", 0.0006, 0.0004, Finding.MET),
        ("MEDIUM", 0.0100, 0.0060, Finding.MISSED),
        ("HIGH", 0.0100, 0.0030, Finding.MISSED),
        ("HIGH", 0.0025, 0.0015, Finding.MISSED),
        ("HIGH", 0.0050, 0.0015, Finding.MET),
        ("EXTREME", 0.0100, 0.0030, Finding.MISSED),
        ("EXTREME", 0.0026, 0.0020, Finding.MISSED),
        ("EXTREME", 0.0050, 0.0020, Finding.MET),
    ],
)
def test_high_and_extreme_need_the_share_and_the_limit_and_medium_one_of_them(level, base_seconds, seconds, finding):
    blocks = rounds(level, base=[block(base_seconds)] * 4, optimised=[block(seconds)] * 4)
    (seen,) = judged(blocks, [level], (BASE, OPTIMISED))
    assert seen.latency is finding
    word = "or" if level == "MEDIUM" else "and"
    assert f" {word} < " in tables_of([seen], TERMS)[0].rows[0][6]


def test_the_improvement_is_paired_so_that_drift_of_both_arms_is_none():
    base = [block(seconds) for seconds in (0.001, 0.004, 0.016, 0.064)]
    half = [block(one.response.mean_seconds / 2) for one in base]
    seen = judged(rounds("MEDIUM", base=base, optimised=half), ["MEDIUM"], (BASE, OPTIMISED))[0].optimised
    assert seen.improvement == pytest.approx((0.5, 0.5, 0.5))
    assert seen.mean_seconds.low == 0 and seen.mean_seconds.ratio < seen.mean_seconds.high
    steady = [block(seconds) for seconds in (0.0010, 0.0011, 0.0030)]
    mean = judged(rounds("MEDIUM", base=steady, optimised=steady), ["MEDIUM"], (BASE, OPTIMISED))[0].reference
    low, high = mean.mean_seconds.low, mean.mean_seconds.high
    assert mean.mean_seconds.ratio == pytest.approx(0.0017) and (low == 0 or low + high == pytest.approx(0.0034))


def test_an_arm_that_leaves_operations_undone_is_not_faster():
    base = [block(0.005)] * 3
    blocks = rounds("HIGH", base=base, optimised=[block(0.001, skipped_total=1), *[block(0.001)] * 2])
    (level,) = judged(blocks, ["HIGH"], (BASE, OPTIMISED))
    assert level.latency is Finding.MISSED and level.optimised.improvement.high < 0.4
    assert any("never begun (optimised 1)" in line for line in story_of([level], TERMS))


@pytest.mark.parametrize(("struck", "is_doubted"), [(99, False), (97, True)])
def test_arms_that_met_other_faults_are_doubted(struck, is_doubted):
    base, optimised = (block(faults={"lock_stall": count}, faults_planned=100) for count in (100, struck))
    (level,) = judged(rounds("HIGH", base=[base], optimised=[optimised]), ["HIGH"], (BASE, OPTIMISED))
    assert any(f"optimised {struck} of 100" in line for line in story_of([level], TERMS)) is is_doubted


def test_one_round_proves_nothing():
    blocks = rounds("BASIC", base=[block(0.01)], optimised=[block(0.001)])
    level = judged(blocks, ["BASIC"], (BASE, OPTIMISED))[0]
    assert (level.latency, level.errors) == (Finding.UNDECIDED, None)
    assert (level.optimised.improvement.low, level.optimised.improvement.high) == (0.0, math.inf)


def test_no_error_is_no_proof_that_there_are_none():
    assert error_interval([block(operations=5_000)] * 3).high == pytest.approx(3.69 / 15_000, rel=0.01)
    clusters = [block(operations=5_000, errors={"55P03": count}) for count in (0, 0, 60)]
    assert error_interval(clusters).high > 0.015, "errors that come together are no independent draws"


def test_calibrated_rates_give_the_errors_that_are_wanted():
    seen = block(
        operations=10_000, errors={"55P03": 90, "57P01": 12, "08003": 3}, faults={"lock_stall": 9, "termination": 10}
    )
    rates = calibrated(seen, 1000.0, 0.006)
    failures = 10.0 * rates.stalls + 1.5 * rates.terminations
    assert failures == pytest.approx(60 * 1000.0 * 0.006)
    assert 10.0 * rates.stalls / failures == pytest.approx(0.9)
    assert calibrated(block(faults={}), 1e6, 0.5).stalls == 600.0, "the schedule takes no more"


def test_the_faults_of_a_block_hang_on_its_seed_alone():
    drawn = [list(TERMS.faults["HIGH"].schedule(20.0, seed).by_time()) for seed in (3, 3, 4)]
    assert drawn[0] == drawn[1] != drawn[2]
