"""What looks and shows, and changes nothing: ``status``, ``history``, ``explain``, ``export``, ``doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ml_postgres_optimization.interfaces.cli import options
from ml_postgres_optimization.interfaces.cli.invocation import chosen_of, diagnose, run


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
    from ml_postgres_optimization.interfaces.commands import state

    run(context, chosen_of(locals()), state.status, read_only=True)


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
    from ml_postgres_optimization.interfaces.commands import records

    run(context, chosen_of(locals()), lambda session: records.history(session, limit=limit), read_only=True)


def explain(
    context: typer.Context,
    trial: Annotated[str, typer.Argument(help="The id of a trial, as history shows it; or last.")] = "last",
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
    from ml_postgres_optimization.interfaces.commands import explanation

    run(
        context,
        chosen_of(locals()),
        lambda session: explanation.explain(session, trial=trial, report=report, pictures=pictures),
        read_only=True,
    )


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
    from ml_postgres_optimization.interfaces.commands import records

    records.check_format(file_format)
    run(
        context,
        chosen_of(locals()),
        lambda session: records.export(session, directory=directory, file_format=file_format),
        read_only=True,
    )


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
    from ml_postgres_optimization.interfaces.commands import diagnosis

    diagnose(context, chosen_of(locals()), diagnosis.diagnose)
