"""``genesis-pg``: one subcommand for each thing that can be done."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ml_postgres_optimization import __version__
from ml_postgres_optimization.interfaces.cli import options
from ml_postgres_optimization.interfaces.cli.invocation import chosen_of, diagnose, run
from ml_postgres_optimization.interfaces.commands import (
    diagnosis,
    explanation,
    extended_test,
    installation,
    learning,
    optimization,
    records,
)
from ml_postgres_optimization.interfaces.commands.offline import tune as offline_tuning

app = typer.Typer(
    name="genesis-pg",
    help="Optimise a live PostgreSQL by machine learning, safely.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"genesis-pg {__version__}")
        raise typer.Exit


@app.callback()
def start(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Optimise a live PostgreSQL by machine learning, safely."""


@app.command()
def setup(
    context: typer.Context,
    *,
    retention_days: Annotated[
        str | None, typer.Option(help="How long metric windows are kept; 30 by default.", metavar="DAYS")
    ] = None,
    dry_run: options.DryRun = False,
    dsn: options.Dsn = None,
    repository: options.RepositoryDsn = None,
    pg_bin: options.PgBin = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Make schema genesis, or bring it up to date; doing it twice changes nothing."""
    run(
        context, chosen_of(locals()), lambda session: installation.set_up(session, dry_run=dry_run), read_only=dry_run
    )


@app.command("simulate")
def simulate_load(
    context: typer.Context,
    *,
    duration: options.Duration = None,
    level: options.LevelOption = None,
    scale: options.Scale = None,
    seed: options.Seed = None,
    memory_limit_bytes: options.Memory = None,
    dry_run: options.DryRun = False,
    dsn: options.Dsn = None,
    repository: options.RepositoryDsn = None,
    pg_bin: options.PgBin = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Run load of our own over many configurations, so that the models can learn what a knob does."""
    chosen = chosen_of(locals()) | {"simulate": True}
    run(context, chosen, lambda session: learning.simulate(session, dry_run=dry_run), read_only=dry_run)


@app.command()
def train(
    context: typer.Context,
    *,
    seed: options.Seed = None,
    dsn: options.Dsn = None,
    repository: options.RepositoryDsn = None,
    pg_bin: options.PgBin = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Fit the forests to the recorded windows, and say whether they beat the naive forecast."""
    run(context, chosen_of(locals()), learning.train, read_only=True)


@app.command()
def optimize(
    context: typer.Context,
    *,
    duration: options.Duration = None,
    trials: options.Trials = None,
    simulate: options.Simulate = False,
    level: options.LevelOption = None,
    scale: options.Scale = None,
    seed: options.Seed = None,
    memory_limit_bytes: options.Memory = None,
    objective: options.Objective = None,
    continuous: Annotated[
        bool,
        typer.Option(
            "--continuous", help="Go on watching, and wake when something is worth a trial; until stopped, or HOURS."
        ),
    ] = False,
    objective_limit_milliseconds: Annotated[
        str | None,
        typer.Option(
            help="A response that must not be exceeded: acted on before it is, if so forecast.", metavar="MS"
        ),
    ] = None,
    allow_knob: Annotated[
        list[str] | None,
        typer.Option(
            help="A knob that may lose acknowledged commits and may be searched all the same.", metavar="NAME"
        ),
    ] = None,
    allow_restart: options.AllowRestart = False,
    restart_command: options.RestartCommand = None,
    dry_run: options.DryRun = False,
    dsn: options.Dsn = None,
    repository: options.RepositoryDsn = None,
    pg_bin: options.PgBin = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Try one candidate at a time, keep what is proven better, put back what is not."""
    run(
        context,
        chosen_of(locals()),
        lambda session: optimization.optimize(session, dry_run=dry_run),
        read_only=dry_run,
    )


@app.command()
def tune(
    context: typer.Context,
    *,
    workload: Annotated[
        str | None,
        typer.Option(help="genesis (ours), tpcb, analytic, or a folder of pgbench scripts.", metavar="NAME"),
    ] = None,
    duration: options.Duration = None,
    trials: options.Trials = None,
    simulate: options.Simulate = False,
    clients: Annotated[str | None, typer.Option(help="Users of the workload.", metavar="NUMBER")] = None,
    level: options.LevelOption = None,
    scale: Annotated[
        str | None, typer.Option(help="Size of its tables: genesis 1, tpcb 50, analytic 10 (1 GB).", metavar="FACTOR")
    ] = None,
    query_timeout: Annotated[
        str | None, typer.Option(help="What a statement of a script may take; 60 by default.", metavar="SECONDS")
    ] = None,
    objective: options.Objective = None,
    study: options.Study = None,
    output: Annotated[
        Path | None, typer.Option(help="Where the configuration is written; the log folder by default.")
    ] = None,
    seed: options.Seed = None,
    memory_limit_bytes: options.Memory = None,
    allow_restart: options.AllowRestart = False,
    restart_command: options.RestartCommand = None,
    dry_run: options.DryRun = False,
    dsn: options.Dsn = None,
    repository: options.RepositoryDsn = None,
    pg_bin: options.PgBin = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Find a configuration for a workload that runs for the tuning alone; restart what needs it."""
    run(
        context,
        chosen_of(locals()),
        lambda session: offline_tuning.tune(session, dry_run=dry_run),
        read_only=dry_run,
    )


@app.command()
def test(
    context: typer.Context,
    *,
    duration: options.Duration = None,
    simulate: options.Simulate = False,
    level: options.LevelOption = None,
    scale: options.Scale = None,
    seed: options.Seed = None,
    memory_limit_bytes: options.Memory = None,
    minimum_success_ratio: Annotated[
        str | None, typer.Option(help="Least share of operations that succeed; 0.995 by default.", metavar="RATIO")
    ] = None,
    maximum_mean_milliseconds: Annotated[
        str | None, typer.Option(help="Longest mean response; 5 by default.", metavar="MS")
    ] = None,
    dry_run: options.DryRun = False,
    dsn: options.Dsn = None,
    repository: options.RepositoryDsn = None,
    pg_bin: options.PgBin = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Run the soak mix for the duration and judge it by success ratio and mean response."""
    run(
        context,
        chosen_of(locals()),
        lambda session: extended_test.run_test(session, dry_run=dry_run),
        read_only=dry_run,
    )


@app.command()
def status(
    context: typer.Context,
    *,
    dsn: options.Dsn = None,
    repository: options.RepositoryDsn = None,
    pg_bin: options.PgBin = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Show the server, the configuration in force, and the last windows."""
    run(context, chosen_of(locals()), records.status, read_only=True)


@app.command()
def history(
    context: typer.Context,
    *,
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = 20,
    dsn: options.Dsn = None,
    repository: options.RepositoryDsn = None,
    pg_bin: options.PgBin = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Show every trial, what each and all brought, and what proofs of it have measured."""
    run(context, chosen_of(locals()), lambda session: records.history(session, limit=limit), read_only=True)


@app.command()
def explain(
    context: typer.Context,
    trial: Annotated[str, typer.Argument(help="The id of a trial, as history shows it; or last.")] = explanation.LAST,
    *,
    report: Annotated[
        Path | None, typer.Option(help="Write it all, with its pictures, as one HTML file.", metavar="FILE")
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="Write its pictures as PNG into this folder.", metavar="FOLDER")
    ] = None,
    dsn: options.Dsn = None,
    repository: options.RepositoryDsn = None,
    pg_bin: options.PgBin = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Explain a trial: what was changed and why, the evidence, the effect, and which knobs mattered."""
    run(
        context,
        chosen_of(locals()),
        lambda session: explanation.explain(session, trial=trial, report=report, pictures=pictures),
        read_only=True,
    )


@app.command()
def rollback(
    context: typer.Context,
    *,
    to: Annotated[
        str, typer.Option(help="baseline: before our first change; or the id of a trial: as it was before that.")
    ] = "baseline",
    dry_run: options.DryRun = False,
    dsn: options.Dsn = None,
    repository: options.RepositoryDsn = None,
    pg_bin: options.PgBin = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Put back an earlier configuration."""
    run(
        context,
        chosen_of(locals()),
        lambda session: optimization.roll_back(session, to=to, dry_run=dry_run),
        read_only=dry_run,
    )


@app.command()
def export(
    context: typer.Context,
    *,
    directory: Annotated[Path | None, typer.Option(help="Where to; the log folder by default.")] = None,
    file_format: Annotated[str, typer.Option("--format", help="csv or parquet.")] = "csv",
    dsn: options.Dsn = None,
    repository: options.RepositoryDsn = None,
    pg_bin: options.PgBin = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Write the recorded windows to CSV or Parquet."""
    records.check_format(file_format)
    run(
        context,
        chosen_of(locals()),
        lambda session: records.export(session, directory=directory, file_format=file_format),
        read_only=True,
    )


@app.command()
def doctor(
    context: typer.Context,
    *,
    dsn: options.Dsn = None,
    repository: options.RepositoryDsn = None,
    pg_bin: options.PgBin = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Check what works, what does not, and say the command that mends it."""
    diagnose(context, chosen_of(locals()), diagnosis.diagnose)


@app.command()
def uninstall(
    context: typer.Context,
    *,
    dry_run: options.DryRun = False,
    dsn: options.Dsn = None,
    repository: options.RepositoryDsn = None,
    pg_bin: options.PgBin = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Take schema genesis, our triggers and our own tables away; the configuration stays."""
    run(
        context,
        chosen_of(locals()),
        lambda session: installation.uninstall(session, dry_run=dry_run),
        read_only=dry_run,
    )
