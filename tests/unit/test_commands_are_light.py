"""A command starts at once: what takes seconds to import is imported when it is needed."""

import subprocess
import sys

import pytest

COMMANDS = "ml_postgres_optimization.interfaces.commands"
HEAVY = {"pandas", "sklearn", "scipy", "skops", "matplotlib"}


@pytest.mark.parametrize(
    "module",
    [
        "ml_postgres_optimization.interfaces.cli.app",
        *(f"{COMMANDS}.{name}" for name in ("state", "records", "installation", "diagnosis", "extended_test")),
        *(f"{COMMANDS}.online.{name}" for name in ("consent", "rollback", "optimization")),
        f"{COMMANDS}.offline.tune",
        f"{COMMANDS}.benchmarking.benchmark",
    ],
)
def test_a_command_imports_no_science(module):
    code = f"import sys, {module}; print(sorted({{name.partition('.')[0] for name in sys.modules}} & {HEAVY!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
