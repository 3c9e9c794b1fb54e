"""What docs/soak_report.md shows runs, and is what the program does."""

import re
import tomllib
from pathlib import Path

from ml_postgres_optimization.soak.judging import limits
from ml_postgres_optimization.soak.judging.limits import Limits, parse_limits
from ml_postgres_optimization.soak.judging.metrics import METRICS
from tests.soak.simulated_run import SimulatedRun

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "soak_report.md").read_text(encoding="utf-8")
(DEFAULTS,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


def test_the_defaults_are_as_they_are_shown_and_none_is_left_out():
    assert parse_limits(DEFAULTS) == Limits()
    assert tomllib.loads(DEFAULTS).keys() == {*limits._KEYS, "drift", "undecided"}
    assert all(f"`{name}`" in PAGE for name in METRICS)


def test_the_example_runs(folder, capsys):
    run = SimulatedRun(hours=0.5, interval_seconds=10, per_second=2, daily=0.0)
    (folder / "criteria.toml").write_text(DEFAULTS, encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(example, {"description": run.description, "intervals": run.intervals(), "folder": folder})
    assert capsys.readouterr().out.startswith("passed 0 ")
    assert {path.name for path in (folder / "report").iterdir()} == set(
        re.findall(r"^\| `([a-z]+\.[a-z]+)` \|", PAGE, re.MULTILINE)
    )
