"""``genesis-pg``: one subcommand for each thing that can be done, in the order in which the help shows them."""

from __future__ import annotations

from typing import Annotated

import typer

from ml_postgres_optimization import __version__
from ml_postgres_optimization.interfaces.cli.subcommands import consenting, keeping, looking, measuring, running

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


for _command in (
    keeping.setup,
    running.simulate,
    running.train,
    running.optimize,
    running.tune,
    running.test,
    measuring.benchmark,
    looking.status,
    looking.history,
    looking.explain,
    consenting.approve,
    consenting.decline,
    consenting.pause,
    consenting.resume,
    keeping.rollback,
    looking.export,
    looking.doctor,
    keeping.uninstall,
):
    app.command()(_command)
