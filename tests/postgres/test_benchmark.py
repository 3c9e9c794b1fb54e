"""``benchmark`` on a real server: blocks, both configurations, interruption, refusals."""

import json
import sys

import numpy as np
import psycopg
import pytest
from command_line import ROOT, CommandLine, clean_environment, rows, written_settings
from protected_trial import until

from ml_postgres_optimization.comparison.arm import BASE, OPTIMISED, Part
from ml_postgres_optimization.comparison.measuring import block as measuring
from ml_postgres_optimization.comparison.measuring.block import BlockPlan, measure_block
from ml_postgres_optimization.comparison.measuring.faulting import FaultRates
from ml_postgres_optimization.interfaces.commands.benchmarking import benchmark, stage
from ml_postgres_optimization.interfaces.workbench import load
from ml_postgres_optimization.knobs.configuration import CONCURRENCY
from ml_postgres_optimization.models.artifact import save_model
from ml_postgres_optimization.models.error_forest import ErrorForest
from ml_postgres_optimization.models.knob_forest import KnobForest
from ml_postgres_optimization.telemetry import SystemClock
from ml_postgres_optimization.workload import LEVELS, Level, LoadGenerator, renew_tables

sys.path.insert(0, str(ROOT / "tests" / "unit"))

from synthetic_windows import STOCK, history  # its folder is no package

SCALE = 0.01
SHORT = ("--simulate", "--scale", str(SCALE), "--seconds", "0.4", "--seed", "3")

CALIBRATIONS = 2


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path, database):
    clean_environment(monkeypatch, tmp_path / "home")
    monkeypatch.setattr(load, "CAPACITY_SECONDS", 0.2)
    # to open ninety sessions for each block is most of a short one
    monkeypatch.setattr(stage, "plain_pool", lambda _session: 4)
    monkeypatch.setattr(stage, "_CAPACITY_RUNS", 1)
    monkeypatch.setattr(measuring, "_CHANGE_SECONDS", 0.3)
    few = {name: Level(name, 20, 10, 0.2, level.mix) for name, level in LEVELS.items()}
    monkeypatch.setattr(benchmark, "LEVELS", few)
    return CommandLine(capsys, tmp_path / "home", database)


@pytest.fixture
def conf(tmp_path):
    path = tmp_path / "tuned.conf"
    path.write_text("# of tune\nwork_mem = '8MB'  # was 4MB\nrandom_page_cost = 1.5\n")
    return path


@pytest.mark.long
def test_every_arm_meets_the_same_operations_and_faults(database, monkeypatch):
    renew_tables(database, SCALE)
    loads = []

    class Kept(LoadGenerator):
        def samples(self):
            batches = super().samples()
            loads.append((self, batches))
            return batches

    monkeypatch.setattr(measuring, "LoadGenerator", Kept)
    seen = [
        measure_block(
            database,
            BlockPlan(
                level=LEVELS["HIGH"],
                arm=arm,
                seed=5,
                rate_per_second=150.0,
                connections=connections,
                warm_up_seconds=0.2,
                seconds=1.5,
                faults=FaultRates(120.0, 200.0),
            ),
            SystemClock(),
        )
        for arm, connections in ((BASE, 8), (OPTIMISED, 4))
    ]
    assert seen[0].operations_total == seen[1].operations_total > 100
    due = [
        np.sort(np.concatenate([batch.intended_start_seconds for batch in batches]) - one.started_at_seconds)
        for one, batches in loads
    ]
    until = [times[(times > 0.2) & (times < 1.7)] for times in due]
    assert np.allclose(*until, atol=1e-6)
    assert seen[0].faults == seen[1].faults
    assert seen[0].faults["lock_stall"] > 0 and seen[0].faults["termination"] > 0
    assert seen[0].errors and not seen[0].retried
    assert seen[1].retried
    assert not seen[0].concurrency_limits and len(seen[1].concurrency_limits) == 1


def test_renewed_tables_have_the_same_rows(database):
    query = "SELECT count(*), sum(balance), sum(updates_total) FROM genesis_load.accounts"
    assert renew_tables(database, SCALE)
    before = rows(database, query)
    rows(database, "UPDATE genesis_load.accounts SET balance = 0, updates_total = 7 RETURNING 1")
    renew_tables(database, SCALE)
    assert rows(database, query) == before


@pytest.mark.slow
def test_an_interrupted_benchmark_puts_back_and_goes_on_to_both_tables(cli, conf, monkeypatch, database):
    before = written_settings(database)
    measure, calls, settings = stage.measure_block, [], set()

    def interrupted(dsn, block, clock, lookout):
        calls.append(block.arm.name)
        settings.add((block.arm.name, rows(dsn, "SHOW work_mem")[0][0], rows(dsn, "SHOW random_page_cost")[0][0]))
        if len(calls) == CALIBRATIONS + 4:
            raise KeyboardInterrupt
        return measure(dsn, block, clock, lookout)

    words = ("benchmark", *SHORT, "--levels", "HIGH", "--blocks", "2", "--skip-ablation", "--configuration", conf)
    monkeypatch.setattr(stage, "measure_block", interrupted)
    cli(*words).is_refused(130, "Interrupted")
    assert calls[CALIBRATIONS:] == ["base", "optimised", "optimised", "base"]
    assert settings == {("optimised", "8MB", "1.5"), ("base", "4MB", "4")}
    assert written_settings(database) == before
    ended = cli(*words, "--json").done(0, 1)
    assert "Going on with an interrupted benchmark: 3 blocks are there." in ended.err
    assert calls[CALIBRATIONS + 4 :] == ["optimised", "base"], "the whole second round, and nothing of the first"
    assert written_settings(database) == before
    assert "no error forest was trained" in ended.document["prevention"]["idle_because"]
    assert (
        ended.document["terms"]["limits"] == {}
        and "prevention" not in ended.document["levels"][0]["arms"]["optimised"]["parts"]
    )
    check_document(ended, cli.home)


def test_a_block_under_foreign_settings_does_not_count(cli, conf, monkeypatch, database):
    cli("setup").done()
    measure, arms = stage.measure_block, []

    def disturbed(dsn, block, clock, lookout):
        figures = measure(dsn, block, clock, lookout)
        arms.append(block.arm.name)
        if block.arm.name == OPTIMISED.name:
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute("ALTER SYSTEM SET work_mem = '12MB'")
                connection.execute("SELECT pg_reload_conf()")
            until(lambda: rows(dsn, "SHOW work_mem") == [("12MB",)])
        return figures

    words = ("benchmark", *SHORT, "--levels", "MEDIUM", "--blocks", "1", "--skip-ablation", "--configuration", conf)
    monkeypatch.setattr(stage, "measure_block", disturbed)
    try:
        refused = cli(*words)
        refused.is_refused(4, "work_mem was changed by somebody else", "12288")
        assert "left alone" in refused.out
        assert arms == ["base", "optimised"]
        (ledger,) = (cli.home / "servers").glob("*/benchmark.jsonl")
        assert [
            line for line in ledger.read_text().splitlines() if '"block"' in line and '"optimised"]' in line
        ] == []
    finally:
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM RESET work_mem")
            connection.execute("SELECT pg_reload_conf()")


def check_document(ended, home):
    document = ended.document
    assert document["terms"]["optimised"] == {"random_page_cost": "1.5", "work_mem": "8MB"}
    assert set(document["terms"]["faults"]) == {"HIGH"}
    (level,) = document["levels"]
    assert level["level"] == "HIGH"
    totals = {arm["operations_total"] for arm in level["arms"].values()}
    assert len(totals) == 1 and totals.pop() > 20
    assert ended.code == (0 if document["is_met"] else 1)
    assert "<img" in (home / "logs" / document["files"]["html"].rpartition("/")[2]).read_text()
    assert not list((home / "servers").glob("*/benchmark.jsonl")), "a finished one is out of the way"


def train_on_deadlocks(cli, database):
    """Have forests of this server that foretell deadlocks from 2 operations at once on, and find 2 the fastest."""
    numbers = np.repeat(np.random.default_rng(3).choice([1, 2, 3, 4], size=200), 2)

    def seen(log_mean, sqlstates=lambda *_: {}):
        def configuration(number):
            return STOCK.replaced({CONCURRENCY: int(numbers[number])})

        return history(400, 1, log_mean=log_mean, sqlstates=sqlstates, configuration=configuration)

    # of each two windows under a number the first shows nothing, so that the number alone can foretell the second
    deadlocks = seen(lambda *_: -6.0, lambda number, _: {"40P01": 3} if number % 2 and numbers[number] > 1 else {})
    speed = seen(lambda number, _: -6.0 + abs(numbers[number] - 2.0))
    cli("setup").done()
    (server,) = (cli.home / "servers").iterdir()
    save_model(ErrorForest.fit(deadlocks, seed=1), server / "models")
    save_model(KnobForest.fit(speed, seed=1), server / "models")


@pytest.mark.long
def test_the_parts_are_measured_one_by_one_and_forests_act_on_the_load(cli, conf, database):
    train_on_deadlocks(cli, database)
    words = ("benchmark", *SHORT, "--levels", "HIGH", "--blocks", "1", "--configuration", conf)
    words += ("--seconds", "2")  # the last one counts: so that a danger can rise in a block
    dry = cli(*words, "--dry-run", "--json").done()
    assert dry.document["blocks"] == 1 + len(Part) + 1
    ended = cli(*words, "--json").done(0, 1)
    check_document(ended, cli.home)
    arms = ended.document["levels"][0]["arms"]
    assert list(arms) == ["base", *(f"{part} only" for part in Part), "optimised"]
    for name, arm in arms.items():
        assert (arm["held_total"] > 0) == ("prevention" in arm["parts"]), name
    assert arms["optimised"]["parts"] == sorted(Part)
    assert ended.document["terms"]["limits"] == {"HIGH": [2, 2]}
    assert ended.document["prevention"]["model"].startswith("errors-000001")
    assert ended.document["prevention"]["is_measured"]


def test_what_cannot_be_compared_is_refused_before_anything_is_measured(cli, tmp_path, database):
    cli("setup").done()
    cli("benchmark", *SHORT).is_refused(2, "Nothing has been promoted", "--configuration")
    cli("benchmark").is_refused(2, "--simulate")
    cli("benchmark", *SHORT, "--levels", "HIGH,LOW").is_refused(2, "--levels", "LOW")
    cli("benchmark", *SHORT, "--levels", "HIGH,HIGH").is_refused(2, "--levels", "each once")
    restart, unknown, broken = (tmp_path / name for name in ("restart.conf", "unknown.json", "broken.conf"))
    restart.write_text("shared_buffers = '256MB'\n")
    unknown.write_text(json.dumps({"best": {"values": {"fsync": False}}}))
    broken.write_text("work_mem '8MB' 'and more'\n")
    wrong = {"a": "[]", "b": '{"best": {"values": []}}', "c": "[" * 100_000, "d": '{"best": {"values": {"x": NaN}}}'}
    wrong |= {
        f"e{place}": json.dumps({"best": {"values": {CONCURRENCY: value}}}) for place, value in enumerate(("x", -2))
    }
    for name, text in wrong.items():
        path = tmp_path / f"{name}.json"
        path.write_text(text)
        cli("benchmark", *SHORT, "--configuration", path).is_refused(2, "cannot be used", str(path))
    for path, said in (
        (restart, "shared_buffers"),
        (unknown, "fsync"),
        (broken, "line 1"),
        (tmp_path / "no", "No such"),
    ):
        cli("benchmark", *SHORT, "--configuration", path).is_refused(2, said, str(path))
