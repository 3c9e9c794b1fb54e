"""What runs load, learns, or tries: ``simulate``, ``train``, ``optimize``, ``tune``, ``test``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.interfaces.cli import options
from ml_postgres_optimization.interfaces.cli.invocation import (
    Look,
    chosen_of,
    diagnose,
    over_a_closed_terminal,
    run,
    words_of,
)


def simulate(
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
    from ml_postgres_optimization.interfaces.commands import learning

    chosen = chosen_of(locals()) | {"simulate": True}
    run(context, chosen, lambda session: learning.simulate(session, dry_run=dry_run), read_only=dry_run)


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
    from ml_postgres_optimization.interfaces.commands import learning

    run(context, chosen_of(locals()), learning.train, read_only=True)


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
    maximum_recovery_seconds: options.MaximumRecovery = None,
    objective: options.Objective = None,
    action: options.Action = None,
    window: options.Window = None,
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
    prevent: Annotated[
        str | None,
        typer.Option(
            help="Errors that are foretold, in a continuous run: act, advise or off; act by default.", metavar="HOW"
        ),
    ] = None,
    prevent_terminate: Annotated[
        bool,
        typer.Option(
            "--prevent-terminate",
            help="Let a session be ended that is idle in a transaction and keeps others waiting.",
        ),
    ] = False,
    prevent_vacuum: Annotated[
        bool,
        typer.Option("--prevent-vacuum", help="Let a table of which a fifth is dead be vacuumed."),
    ] = False,
    prevent_role: Annotated[
        list[str] | None,
        typer.Option(
            help="A role of an application whose new sessions may be given time limits for a while; may be repeated.",
            metavar="NAME",
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
    from ml_postgres_optimization.interfaces.commands.online import optimization

    run(
        context,
        chosen_of(locals()),
        lambda session: optimization.optimize(session, dry_run=dry_run),
        read_only=dry_run,
    )


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
    """Find a configuration for a workload that runs for the tuning alone; restart what needs it."""
    from ml_postgres_optimization.interfaces.commands.offline import tune as offline_tuning

    run(
        context,
        chosen_of(locals()),
        lambda session: offline_tuning.tune(session, dry_run=dry_run),
        read_only=dry_run,
    )


def test(
    context: typer.Context,
    run_name: Annotated[
        str | None,
        typer.Argument(metavar="[RUN]", help="A run, for --resume, --attach and the like; the last one by default."),
    ] = None,
    *,
    workload_file: Annotated[
        Path | None, typer.Option(help="What is offered, a TOML file; docs/soak.md has its keys.")
    ] = None,
    mix: Annotated[
        str | None, typer.Option(help="Weights of operations: reads=45,writes=30,updates=15, for one.", metavar="MIX")
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(
            help="How the load varies: constant, steps, daily, bursts, ramp, walk, levels, or a CSV file of "
            "seconds,factor.",
            metavar="SHAPE",
        ),
    ] = None,
    faults: Annotated[
        str | None,
        typer.Option(help="What goes wrong beside it: light, hard, or a TOML file of [[faults]].", metavar="FAULTS"),
    ] = None,
    optimize_beside: Annotated[
        bool,
        typer.Option(
            "--optimize", help="Have the optimiser work on the server meanwhile; its trials are marked in the report."
        ),
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped or killed.")] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Run in a process of its own, and return once the run has begun.")
    ] = False,
    attach: Annotated[
        bool, typer.Option("--attach", help="Watch a run of another process until it ends; Ctrl-C leaves it going.")
    ] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Have a running run stop in good order.")] = False,
    list_runs: Annotated[bool, typer.Option("--list", help="Show the runs that are recorded here.")] = False,
    abandon: Annotated[bool, typer.Option("--abandon", help="Give a run up for good; its records stay.")] = False,
    report: Annotated[
        bool, typer.Option("--report", help="Judge a run again, and write its report, from its journal.")
    ] = False,
    duration: options.Duration = None,
    simulate: options.Simulate = False,
    level: options.LevelOption = None,
    scale: options.Scale = None,
    seed: options.Seed = None,
    memory_limit_bytes: options.Memory = None,
    criteria: Annotated[
        Path | None, typer.Option(help="What the run must hold, a TOML file; docs/soak_report.md has its keys.")
    ] = None,
    minimum_success_ratio: Annotated[
        str | None, typer.Option(help="Least share of operations that succeed; 0.995 by default.", metavar="RATIO")
    ] = None,
    maximum_mean_milliseconds: Annotated[
        str | None, typer.Option(help="Longest mean response; 5 by default.", metavar="MS")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Where the report is written; a folder of the log folder by default.")
    ] = None,
    dry_run: options.DryRun = False,
    dsn: options.Dsn = None,
    repository: options.RepositoryDsn = None,
    pg_bin: options.PgBin = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Run the soak mix for the duration, going on whatever happens, and judge it by its criteria."""
    from ml_postgres_optimization.interfaces.commands import extended_test
    from ml_postgres_optimization.interfaces.commands.soaking.wishes import wished

    chosen = chosen_of(locals())
    aside = {"--list": list_runs, "--abandon": abandon, "--report": report, "--attach": attach, "--stop": stop}
    _require_one({"--resume": resume, **aside}, run_name)
    offering = {"--workload-file": workload_file, "--mix": mix, "--shape": shape, "--faults": faults}
    _refuse_offering(offering | {"--optimize": optimize_beside}, is_new=not (resume or any(aside.values())))
    wish = wished(workload_file, mix=mix, shape=shape, faults=faults, level=level, optimizes=optimize_beside)
    if detach:
        _detach(context, chosen, {**aside, "--dry-run": dry_run})
    elif wanted := [name for name, is_wanted in aside.items() if is_wanted]:
        diagnose(context, chosen, _look_at(run_name, wanted[0]))
    else:
        with over_a_closed_terminal():
            run(
                context,
                {**wish.settings, **chosen},
                lambda session: (
                    extended_test.resume_test(session, run_name, dry_run=dry_run)
                    if resume
                    else extended_test.run_test(session, wish=wish, dry_run=dry_run)
                ),
                read_only=dry_run,
            )


def _look_at(run_name: str | None, flag: str) -> Look:
    """Return what looks at runs without a server, by the flag that asks for it."""
    from ml_postgres_optimization.interfaces.commands.soaking import attaching, reports, runs

    looks: Mapping[str, Look] = {
        "--list": lambda _settings, home, _environ, _reporter: runs.list_runs(home),
        "--abandon": lambda _settings, home, _environ, _reporter: runs.abandon_run(home, run_name),
        "--report": lambda settings, home, _environ, _reporter: reports.report_run(home, settings, run_name),
        "--attach": lambda settings, home, _environ, told: attaching.attach_run(home, settings, told, run_name),
        "--stop": lambda _settings, home, _environ, _reporter: attaching.stop_run(home, run_name),
    }
    return looks[flag]


# they may hold a password, which a command line shows to everybody on the machine
_NOT_FOR_A_COMMAND_LINE = {"dsn": "GENESIS_DSN", "repository": "GENESIS_REPOSITORY"}


def _detach(context: typer.Context, chosen: Mapping[str, object], others: Mapping[str, bool]) -> None:
    """Do in a process of its own what this command line asks for.

    Raises
    ------
    UsageError
        If that is nothing that goes on.
    """
    from ml_postgres_optimization.interfaces.commands.soaking import detaching

    if wanted := [name for name, is_wanted in others.items() if is_wanted]:
        raise UsageError(
            f"--detach and {wanted[0]} are given together.", "Only a test, or --resume of one, goes on by itself."
        )
    hidden = {name: str(chosen[key]) for key, name in _NOT_FOR_A_COMMAND_LINE.items() if key in chosen}
    command, *words = words_of(context, {"detach", "json", *_NOT_FOR_A_COMMAND_LINE})
    with over_a_closed_terminal():
        diagnose(
            context,
            chosen,
            lambda _settings, home, environ, reporter: detaching.detach_test(
                home, {**environ, **hidden}, reporter, [command, "--json", *words]
            ),
        )


def _refuse_offering(flags: Mapping[str, object], *, is_new: bool) -> None:
    """Refuse what a run shall offer where none is begun.

    Raises
    ------
    UsageError
    """
    given = [name for name, value in flags.items() if value not in (None, False)]
    if given and not is_new:
        raise UsageError(
            f"{' and '.join(given)} are for a run that begins.", "Leave them out: a run offers what it began with."
        )


def _require_one(flags: Mapping[str, bool], run_name: str | None) -> None:
    """Refuse two things to do with a run, and a run with which nothing is to be done.

    Raises
    ------
    UsageError
    """
    wanted = [name for name, is_wanted in flags.items() if is_wanted]
    if len(wanted) > 1:
        raise UsageError(f"{' and '.join(wanted)} are given together.", "Choose one of them.")
    if run_name is not None and wanted in ([], ["--list"]):
        raise UsageError(
            f"A run is named, {run_name!r}, and nothing to do with it.",
            "Add --resume, --attach, --stop, --report or --abandon.",
        )
