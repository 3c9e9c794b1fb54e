"""The command lines: ``genesis-pg`` and ``run.py``."""

from ml_postgres_optimization.interfaces.cli.entry import main, run_main

__all__ = ["main", "run_main"]
