"""``run.py``: the specification's command line, by modes."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated

import typer

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.interfaces.cli import options
from ml_postgres_optimization.interfaces.cli.invocation import chosen_of, over_a_closed_terminal, run
from ml_postgres_optimization.interfaces.commands import everything, extended_test, installation
from ml_postgres_optimization.interfaces.commands.online import optimization
from ml_postgres_optimization.interfaces.reporter import Result
from ml_postgres_optimization.interfaces.session import Session

MODES = ("setup", "optimize", "test", "all")

app = typer.Typer(
    help="Optimise a live PostgreSQL by machine learning, safely.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command()
def start(
    context: typer.Context,
    *,
    mode: Annotated[str, typer.Option("--mode", "-m", help=" | ".join(MODES), metavar="MODE")] = "optimize",
    simulate: options.Simulate = False,
    duration: options.Duration = None,
    level: options.LevelOption = None,
    scale: options.Scale = None,
    seed: options.Seed = None,
    dsn: options.Dsn = None,
    repository: options.RepositoryDsn = None,
    pg_bin: options.PgBin = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Set up, optimise or test a PostgreSQL, or do all of it; every other command is genesis-pg's."""
    if mode not in MODES:
        raise UsageError(f"The mode {mode!r} is not known.", f"Choose one of: {', '.join(MODES)}.")
    chosen = chosen_of(locals())
    if mode == "all":
        chosen["simulate"] = True
    with over_a_closed_terminal() if mode in {"test", "all"} else nullcontext():
        run(context, chosen, lambda session: _work(session, mode, dry_run=dry_run), read_only=dry_run)


def _work(session: Session, mode: str, *, dry_run: bool) -> Result:
    if mode == "setup":
        return installation.set_up(session, dry_run=dry_run)
    if mode == "optimize":
        return optimization.optimize(session, dry_run=dry_run)
    if mode == "test":
        return extended_test.run_test(session, dry_run=dry_run)
    return everything.run_all(session, dry_run=dry_run)
