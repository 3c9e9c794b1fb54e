"""The options that commands share, each spelled once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SERVER = "Server"
OUTPUT = "Output"

Dsn = Annotated[
    str | None,
    typer.Option(
        help="The server, as a URI or libpq keywords. Without it POSTGRES_* and PG* count; without any of them an "
        "embedded server is started.",
        rich_help_panel=SERVER,
    ),
]
RepositoryDsn = Annotated[
    str | None,
    typer.Option(
        "--repository", help="Where schema genesis stands, when not in the tuned database.", rich_help_panel=SERVER
    ),
]
PgBin = Annotated[
    Path | None,
    typer.Option(help="The bin folder of the PostgreSQL that the embedded server runs.", rich_help_panel=SERVER),
]
Duration = Annotated[
    str | None, typer.Option("--duration", "-d", help="How long, in hours; fractions are allowed.", metavar="HOURS")
]
Simulate = Annotated[
    bool, typer.Option("--simulate", "-s", help="Run load of our own on the server; the embedded one always gets it.")
]
Scale = Annotated[str | None, typer.Option(help="Size of our own tables: 1 is about 100 MB.", metavar="FACTOR")]
LevelOption = Annotated[
    str | None,
    typer.Option("--level", help="Offered load of our own: BASIC, MEDIUM, HIGH or EXTREME.", metavar="LEVEL"),
]
Objective = Annotated[
    str | None,
    typer.Option(help="What a trial compares: mean, p95 or p99 response, or throughput.", metavar="MEASURE"),
]
Action = Annotated[
    str | None,
    typer.Option(
        help="auto: try at once. approve: each proposal waits for genesis-pg approve. advise: print SQL only.",
        metavar="ACTION",
    ),
]
Window = Annotated[
    list[str] | None,
    typer.Option(
        help="When the server may be changed: 'Mon-Fri 22:00-05:00', with a time zone if you like; may be repeated.",
        metavar="WINDOW",
    ),
]
Trials = Annotated[
    str | None, typer.Option("--trials", help="Trials at most, the proof not counted.", metavar="NUMBER")
]
Study = Annotated[
    str | None,
    typer.Option(help="A storage of Optuna's that servers share which are tuned for the same.", metavar="URL"),
]
MaximumRecovery = Annotated[
    str | None,
    typer.Option(
        "--maximum-recovery-seconds",
        help="How long a crash recovery may take: bounds max_wal_size; 300 by default.",
        metavar="SECONDS",
    ),
]
Seed = Annotated[str | None, typer.Option(help="Seed of everything drawn at random.", metavar="NUMBER")]
Memory = Annotated[
    str | None,
    typer.Option("--memory-limit-bytes", help="What the server may use, where that cannot be seen.", metavar="BYTES"),
]
AllowRestart = Annotated[
    bool,
    typer.Option(
        "--allow-restart",
        help="Let the server be restarted, to try what takes effect at its start only.",
        rich_help_panel=SERVER,
    ),
]
RestartCommand = Annotated[
    str | None,
    typer.Option(
        help="What restarts a server of yours: 'systemctl restart postgresql', for one.", rich_help_panel=SERVER
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Say what would be done, as SQL where it is SQL, and change nothing."),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on standard output.", rich_help_panel=OUTPUT)
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=OUTPUT)]
