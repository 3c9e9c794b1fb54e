"""What measures the product itself: ``benchmark``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ml_postgres_optimization.interfaces.cli import options
from ml_postgres_optimization.interfaces.cli.invocation import chosen_of, run


def benchmark(
    context: typer.Context,
    *,
    levels: Annotated[
        str | None,
        typer.Option(
            help="Of BASIC, MEDIUM, HIGH and EXTREME, with commas between; all by default.", metavar="LEVELS"
        ),
    ] = None,
    blocks: Annotated[
        str | None, typer.Option(help="Of each arm at each level; 5 by default.", metavar="NUMBER")
    ] = None,
    seconds: Annotated[
        str | None,
        typer.Option(
            help="Length of a block, at least; 20 by default, longer where a level needs its operations.",
            metavar="SECONDS",
        ),
    ] = None,
    skip_ablation: Annotated[
        bool, typer.Option("--skip-ablation", help="Measure base and optimised only, none of the parts by itself.")
    ] = False,
    configuration: Annotated[
        Path | None,
        typer.Option(
            help="What to compare with base: a .json or .conf of genesis-pg tune; by default what was promoted here."
        ),
    ] = None,
    tune_minutes: Annotated[
        str | None,
        typer.Option(
            help="How long to tune first, where nothing has been promoted on the embedded server; 10 by default.",
            metavar="MINUTES",
        ),
    ] = None,
    simulate: options.Simulate = False,
    scale: options.Scale = None,
    output: Annotated[
        Path | None, typer.Option(help="Where the report is written; the log folder by default.")
    ] = None,
    seed: options.Seed = None,
    memory_limit_bytes: options.Memory = None,
    maximum_recovery_seconds: options.MaximumRecovery = None,
    allow_restart: options.AllowRestart = False,
    restart_command: options.RestartCommand = None,
    dry_run: options.DryRun = False,
    dsn: options.Dsn = None,
    repository: options.RepositoryDsn = None,
    pg_bin: options.PgBin = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Compare stock with what was promoted, limiter, retries, prevention, in alternating blocks of one load."""
    from ml_postgres_optimization.interfaces.commands.benchmarking import benchmark as comparing

    run(
        context,
        chosen_of(locals()),
        lambda session: comparing.benchmark(session, dry_run=dry_run),
        read_only=dry_run,
    )
