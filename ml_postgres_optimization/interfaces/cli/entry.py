"""Where the operating system comes in."""

from __future__ import annotations

import sys
from pathlib import Path

import optuna

from ml_postgres_optimization.interfaces.cli import app, classic
from ml_postgres_optimization.interfaces.cli.invocation import invoke


def main() -> None:
    """Run ``genesis-pg`` and end with its exit code."""
    optuna.logging.disable_default_handler()  # it would write between our own lines
    sys.exit(invoke(app.app, None, project_root=None, program="genesis-pg"))


def run_main() -> None:
    """Run ``run.py`` and end with its exit code; state and logs lie beside it."""
    optuna.logging.disable_default_handler()
    root = Path(__file__).resolve().parents[3]
    sys.exit(invoke(classic.app, None, project_root=root, program="run.py"))
