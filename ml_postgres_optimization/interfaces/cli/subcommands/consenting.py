"""The owner's word: ``approve``, ``decline``, ``pause``, ``resume``."""

from __future__ import annotations

from typing import Annotated

import typer

from ml_postgres_optimization.interfaces.cli import options
from ml_postgres_optimization.interfaces.cli.invocation import chosen_of, run


def approve(
    context: typer.Context,
    proposal: Annotated[
        str, typer.Argument(help="Its id, or last; without one all are shown.", show_default=False)
    ] = "",
    *,
    dsn: options.Dsn = None,
    repository: options.RepositoryDsn = None,
    pg_bin: options.PgBin = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Let a proposal be tried that waits for a word; without an id, show them."""
    from ml_postgres_optimization.interfaces.commands.online import consent
    from ml_postgres_optimization.safety.consent import Answer

    run(
        context,
        chosen_of(locals()),
        lambda session: (
            consent.answer(session, proposal, Answer.APPROVED) if proposal else consent.show_proposals(session)
        ),
        read_only=True,
    )


def decline(
    context: typer.Context,
    proposal: Annotated[str, typer.Argument(help="Its id, as approve shows it; or last.")],
    *,
    dsn: options.Dsn = None,
    repository: options.RepositoryDsn = None,
    pg_bin: options.PgBin = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Forbid a proposal; it is not made again."""
    from ml_postgres_optimization.interfaces.commands.online import consent
    from ml_postgres_optimization.safety.consent import Answer

    run(
        context,
        chosen_of(locals()),
        lambda session: consent.answer(session, proposal, Answer.DECLINED),
        read_only=True,
    )


def pause(
    context: typer.Context,
    *,
    reason: Annotated[str, typer.Option(help="Why, for whoever asks.", show_default=False)] = "",
    dsn: options.Dsn = None,
    repository: options.RepositoryDsn = None,
    pg_bin: options.PgBin = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Halt all changes: what is on trial is put back within seconds, and nothing new is tried."""
    from ml_postgres_optimization.interfaces.commands.online import consent

    run(context, chosen_of(locals()), lambda session: consent.pause(session, reason), read_only=True)


def resume(
    context: typer.Context,
    *,
    dsn: options.Dsn = None,
    repository: options.RepositoryDsn = None,
    pg_bin: options.PgBin = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Let changes go on after a pause."""
    from ml_postgres_optimization.interfaces.commands.online import consent

    run(context, chosen_of(locals()), consent.resume, read_only=True)
