"""What a test shall offer, from a file and flags: what is understood, and what is refused by its name."""

import json
import tomllib
from pathlib import Path

import pytest

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.interfaces.commands.soaking.plans import heard, kept_shape, load_json, planned
from ml_postgres_optimization.interfaces.commands.soaking.wishes import wished
from ml_postgres_optimization.workload import SOAK_MIX, LoadPlan, OperationKind
from ml_postgres_optimization.workload.faults import PRESETS, FaultList
from ml_postgres_optimization.workload.shapes import Stages

HOUR = 3600.0
PAGE = Path(__file__).resolve().parents[2] / "docs" / "soak.md"


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "what.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_file_says_it_all_and_a_flag_counts_before_it(written):
    path = written('hours = 72\nrate = 300\nfaults = "light"\nshape = "daily"\n[mix]\nreads = 3\nwrite = 1\n')
    wish = wished(path)
    assert wish.settings == {"duration_hours": 72}
    assert (wish.rate_per_second, wish.shape, wish.faults) == (300.0, "daily", PRESETS["light"])
    assert wish.mix.shares[:2] == (0.75, 0.25)
    flagged = wished(path, mix="reads=1", shape="walk", faults="hard")
    assert flagged.mix.kinds == (OperationKind.READ,)
    assert (flagged.shape, flagged.faults) == ("walk", PRESETS["hard"])
    assert flagged.rate_per_second == 300.0
    assert wished().mix == SOAK_MIX
    assert wished(mix="reads=45,writes=30,updates=15,transactions=5,deletes=5").mix == SOAK_MIX


def test_levels_are_stretches_of_the_highest_of_them(written):
    wish = wished(written('levels = [{level = "BASIC", hours = 2}, {level = "HIGH", hours = 1}]'))
    assert wish.settings == {"level": "HIGH"}
    shape = wish.rate_shape(72 * HOUR, level="HIGH", seed=0)
    hours = (0.0, 1.99, 2.0, 2.99, 3.0, 5.5)
    assert [round(shape(hour * HOUR), 4) for hour in hours] == [0.0833, 0.0833, 1.0, 1.0, 0.0833, 1.0]
    quarters = wished(shape="levels").rate_shape(4 * HOUR, level="EXTREME", seed=0)
    assert [round(quarters(hour * HOUR), 4) for hour in (0.5, 1.5, 2.5, 3.5)] == [0.0625, 0.375, 0.75, 1.0]


def test_a_level_by_flag_counts_before_rate_and_levels_of_the_file(written):
    rated = wished(written("rate = 300"), level="BASIC")
    assert (rated.rate_per_second, rated.settings) == (None, {"level": "BASIC"})
    levelled = wished(written('levels = [{level = "HIGH", hours = 1}]'), level="BASIC")
    assert (levelled.shape, levelled.levels, levelled.settings) == ("constant", (), {"level": "BASIC"})
    with pytest.raises(UsageError, match="given together"):
        wished(level="BASIC", shape="levels")


def test_what_is_kept_is_what_was_offered():
    plan = LoadPlan(SOAK_MIX, rate_per_second=100.0, rate_shape=Stages(((60.0, 0.5), (30.0, 1.0))), seed=7)
    kept = load_json(plan) | {"shape": kept_shape(plan, "levels")}
    again = planned(json.loads(json.dumps(kept)), 7, 600.0)
    assert again.rate_shape == plan.rate_shape
    assert again.processes == 1, "as many as draw operations, on a machine of any size"
    assert again.mix == SOAK_MIX


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("hour = 72", "Did you mean hours"),
        ("rate = 0", "rate is 0"),
        ("rate = nan", "rate is nan"),
        ("rate = true", "rate is True"),
        ('rate = 10\nlevel = "HIGH"', "both level and rate"),
        ('shape = "daily"\nlevels = [{level = "HIGH", hours = 1}]', "both shape and levels"),
        ('level = "LOW"\nlevels = [{level = "HIGH", hours = 1}]', "Levels are listed"),
        ('shape = "wavy"', "wavy"),
        ("shape = 7", "shape is 7"),
        ("levels = []", "levels is []"),
        ('levels = [{level = "LOW", hours = 1}]', "levels 1: level is 'LOW'"),
        ('levels = [{level = "HIGH", hours = -1}]', "levels 1: hours is -1"),
        ('levels = [{level = "HIGH", minutes = 1}]', "'minutes' is not known"),
        ("mix = {}", "mix is {}"),
        ("[mix]\nreadings = 1", "Did you mean reads"),
        ("[mix]\nreads = 0", "weight of reads is 0"),
        ("[mix]\nreads = -1", "weight of reads is -1"),
        ("[mix]\nreads = inf", "weight of reads is inf"),
        ("[mix]\nreads = 1\nread = 1", "read a second time"),
        ('faults = "gentle"', "faults is 'gentle'"),
        ("faults = [1]", "Fault 1 is 1"),
        ('[[faults]]\nkind = "flood"\nevery = 9', "Fault 1 is of kind 'flood'"),
        ('[[faults]]\nkind = "read_only"\nevery = 9', "leave the database read-only"),
        ('[[faults]]\nkind = "crash"', "every = None"),
        ('[[faults]]\nkind = "crash"\nevery = 0.5', "every = 0.5"),
        ('[[faults]]\nkind = "crash"\nevery = 9\nwya = "backend"', "Did you mean way"),
        ('[[faults]]\nkind = "crash"\nevery = 9\nway = "gently"', "gently"),
        ('[[faults]]\nkind = "termination"\nevery = 9\ncount = 1.5', "1.5"),
        ('[[faults]]\nkind = "lock_stall"\nevery = 9\nis_whole_table = 1', "true or false"),
        ("rate = ", "no TOML"),
    ],
)
def test_what_is_not_understood_is_refused_by_its_name(written, text, fragment):
    with pytest.raises(UsageError) as refused:
        wished(written(text))
    assert fragment in f"{refused.value.what} {refused.value.next_step}"


@pytest.mark.parametrize(
    ("flags", "fragment"),
    [
        ({"mix": "reads"}, "'reads'"),
        ({"mix": "reads=1,reads=2"}, "a second time"),
        ({"mix": "reads=many"}, "'many'"),
        ({"mix": "reads=-1"}, "-1"),
        ({"mix": ""}, "--mix has ''"),
        ({"faults": "gentle"}, "neither known nor a file"),
        ({"shape": "wavy"}, "wavy"),
    ],
)
def test_a_flag_that_is_not_understood_is_refused(flags, fragment):
    with pytest.raises(UsageError) as refused:
        wished(**flags)
    assert fragment in refused.value.what


def test_the_page_shows_a_file_that_is_understood_and_the_presets_as_they_are(written):
    whole, light, hard = (part.partition("```")[0] for part in PAGE.read_text().split("```toml\n")[1:])
    assert wished(written(whole)).settings["duration_hours"] == 72
    for name, text in (("light", light), ("hard", hard)):
        assert FaultList(tuple(tomllib.loads(text)["faults"])) == PRESETS[name]


@pytest.mark.parametrize(("interval_seconds", "report_seconds"), [(60, 0.5), (10, 0.5), (5, 0.25), (1, 0.2)])
def test_clients_report_less_often_where_intervals_are_long(interval_seconds, report_seconds):
    plan = heard(LoadPlan(SOAK_MIX), ("run", 3), interval_seconds)
    assert (plan.report_seconds, plan.ledger) == (report_seconds, ("run", 3))
