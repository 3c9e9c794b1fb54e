"""Where the operating system comes in."""

from __future__ import annotations

import sys
from pathlib import Path

INTERRUPTED = 130


def main() -> None:
    """Run ``genesis-pg`` and end with its exit code."""
    sys.exit(_run("genesis-pg", project_root=None))


def run_main() -> None:
    """Run ``run.py`` and end with its exit code; state and logs lie beside it."""
    sys.exit(_run("run.py", project_root=Path(__file__).resolve().parents[3]))


def _run(program: str, *, project_root: Path | None) -> int:
    try:
        # imported here, since it takes seconds in which Ctrl-C is to be answered too
        import optuna  # noqa: PLC0415

        from ml_postgres_optimization.interfaces.cli import app, classic, invocation  # noqa: PLC0415
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted before anything was begun.\nThe same command starts it.\n")
        return INTERRUPTED
    optuna.logging.disable_default_handler()  # it would write between our own lines
    chosen = app.app if project_root is None else classic.app
    return invocation.invoke(chosen, None, project_root=project_root, program=program)
