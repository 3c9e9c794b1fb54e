"""What makes, puts back and takes away: ``setup``, ``rollback``, ``uninstall``."""

from __future__ import annotations

from typing import Annotated

import typer

from ml_postgres_optimization.interfaces.cli import options
from ml_postgres_optimization.interfaces.cli.invocation import chosen_of, run


def setup(
    context: typer.Context,
    *,
    retention_days: Annotated[
        str | None, typer.Option(help="How long metric windows are kept; 30 by default.", metavar="DAYS")
    ] = None,
    roles: Annotated[
        bool,
        typer.Option(
            "--roles",
            help="Make the roles genesis_observe, genesis_advise and genesis_tune instead; --dry-run prints the SQL "
            "for psql.",
        ),
    ] = False,
    dry_run: options.DryRun = False,
    dsn: options.Dsn = None,
    repository: options.RepositoryDsn = None,
    pg_bin: options.PgBin = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Make schema genesis, or bring it up to date; doing it twice changes nothing."""
    from ml_postgres_optimization.interfaces.commands import installation

    made = installation.set_up_roles if roles else installation.set_up
    run(context, chosen_of(locals()), lambda session: made(session, dry_run=dry_run), read_only=dry_run)


def rollback(
    context: typer.Context,
    *,
    to: Annotated[
        str,
        typer.Option(
            help="baseline: before our first change; the id of a trial: as it was before that; or a moment: "
            "'2026-11-30 14:00' (of this machine's time zone, where none is given), '2 hours ago'."
        ),
    ] = "baseline",
    allow_restart: options.AllowRestart = False,
    restart_command: options.RestartCommand = None,
    dry_run: options.DryRun = False,
    dsn: options.Dsn = None,
    repository: options.RepositoryDsn = None,
    pg_bin: options.PgBin = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Put back an earlier configuration."""
    from ml_postgres_optimization.interfaces.commands.online import rollback as going_back

    run(
        context,
        chosen_of(locals()),
        lambda session: going_back.roll_back(session, to=to, dry_run=dry_run),
        read_only=dry_run,
    )


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
    from ml_postgres_optimization.interfaces.commands import installation

    run(
        context,
        chosen_of(locals()),
        lambda session: installation.uninstall(session, dry_run=dry_run),
        read_only=dry_run,
    )
