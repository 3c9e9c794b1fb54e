"""From a command line to an exit code: what every command has in common."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import typer

from ml_postgres_optimization.errors import GenesisError, Interrupted, StateError, UsageError
from ml_postgres_optimization.interfaces.cli.console import ConsoleReporter, error_document, one_line
from ml_postgres_optimization.interfaces.home import Home, resolve_home
from ml_postgres_optimization.interfaces.logs import LOG_NAME, open_log
from ml_postgres_optimization.interfaces.reporter import Reporter, Result, json_text
from ml_postgres_optimization.interfaces.session import Session, open_session
from ml_postgres_optimization.interfaces.settings import Settings, load_settings
from ml_postgres_optimization.redaction import without_passwords

Look = Callable[[Settings, Home, Mapping[str, str], Reporter], Result]
"""Work that needs no session."""


@dataclass(slots=True)
class Invocation:
    """One start of the program.

    Parameters
    ----------
    environ : mapping of str to str
    project_root : Path or None
        Where ``run.py`` stands, when it is what was started.
    json, debug : bool
        Whether the command line asks for it.
    """

    environ: Mapping[str, str]
    project_root: Path | None
    json: bool
    debug: bool


def chosen_of(parameters: Mapping[str, object]) -> dict[str, object]:
    """Return those of a command's parameters that are settings; None means that it was not chosen."""
    names = {
        "duration": "duration_hours",
        "query_timeout": "query_timeout_seconds",
        "seconds": "block_seconds",
    }
    renamed = {names.get(name, name): value for name, value in parameters.items()}
    return {
        name: value
        for name, value in renamed.items()
        if name in Settings.model_fields and value not in (None, False, [])
    }


def words_of(context: typer.Context, without: Collection[str]) -> list[str]:
    """Return the words of a command's own line again, but for the parameters named in `without`."""
    words: list[str] = []
    named = []
    for parameter in context.command.params:
        name, value = parameter.name or "", context.params.get(parameter.name or "")
        source = context.get_parameter_source(name)
        if name in without or value is None or source is None or source.name != "COMMANDLINE":
            continue
        if parameter.param_type_name == "argument":
            named.append(str(value))
        elif value is True:
            words.append(parameter.opts[0])
        else:
            words += [f"{parameter.opts[0]}={each}" for each in (value if isinstance(value, list) else [value])]
    return [context.command.name or "", *words, *(["--", *named] if named else [])]


@contextmanager
def over_a_closed_terminal() -> Iterator[None]:
    """Let the work go on when its terminal is closed, that of processes started meanwhile too."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def run(
    context: typer.Context,
    chosen: Mapping[str, object],
    work: Callable[[Session], Result],
    *,
    read_only: bool = False,
) -> None:
    """Open a session by what was chosen, do `work` in it, show the result, and end with its exit code."""

    def in_a_session(settings: Settings, home: Home, reporter: ConsoleReporter) -> Result:
        environ = context.obj.environ
        with open_session(settings, home, environ, reporter, read_only=read_only) as session:
            return work(session)

    _finish(context, chosen, in_a_session)


def diagnose(
    context: typer.Context,
    chosen: Mapping[str, object],
    work: Look,
) -> None:
    """Do `work` that must not depend on a session, since it says why none can be opened."""
    _finish(context, chosen, lambda settings, home, reporter: work(settings, home, context.obj.environ, reporter))


def _finish(
    context: typer.Context, chosen: Mapping[str, object], work: Callable[[Settings, Home, ConsoleReporter], Result]
) -> None:
    invocation: Invocation = context.obj
    reporter = ConsoleReporter(sys.stderr if invocation.json else sys.stdout)
    try:
        settings = load_settings(chosen)
        result = work(settings, resolve_home(invocation.environ, invocation.project_root), reporter)
    except KeyboardInterrupt as error:
        raise _interrupted(error) from error
    finally:
        reporter.close()
    with _writable_output():
        if invocation.json:
            sys.stdout.write(json_text(result.document))
        else:
            reporter.show(result)
        sys.stdout.flush()
    raise typer.Exit(result.exit_code)


@contextmanager
def _writable_output() -> Iterator[None]:
    """Say in two lines that a result could not be written; a reader that has seen enough (``head``) is no error.

    Raises
    ------
    StateError
    """
    try:
        yield
    except OSError as error:
        # what is still buffered would be tried again, and fail again, at the end of the interpreter
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise StateError(
                f"The result cannot be written to standard output: {error.strerror}.",
                "The work itself is done: genesis-pg status and history show what was recorded.",
            ) from error


def invoke(app: typer.Typer, arguments: Sequence[str] | None, *, project_root: Path | None, program: str) -> int:
    """Run `app` and return the exit code; an error is two lines, a traceback only with ``--debug``.

    Notes
    -----
    An error that nobody foresaw is told in the same form; its traceback is in the log.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    # known before the command line is read: an error in it is told in the same form
    invocation = Invocation(os.environ, project_root, json="--json" in words, debug="--debug" in words)
    try:
        with _terminated_like_interrupted():
            return _exit_code_of(app, words, program, invocation)
    except GenesisError as error:
        return _tell(invocation, error)
    except typer.TyperException as error:
        return _tell(invocation, _usage_error(error, program))
    except (KeyboardInterrupt, typer.Abort) as error:
        return _tell(invocation, _interrupted(error))
    except Exception as error:
        return _tell(invocation, _defect(invocation, error))


def _exit_code_of(app: typer.Typer, words: list[str], program: str, invocation: Invocation) -> int:
    command: Any = typer.main.get_command(app)
    code = command.main(args=words, prog_name=program, standalone_mode=False, obj=invocation)
    if code == Interrupted.exit_code:  # Typer makes this of Ctrl-C outside our own work
        raise KeyboardInterrupt
    return code if isinstance(code, int) else 0


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM and a closed terminal do what Ctrl-C does, so that one way out puts everything back."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    # under nohup a closed terminal is ignored, and stays so
    numbers = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _usage_error(error: typer.TyperException, program: str) -> UsageError:
    context = getattr(error, "ctx", None)
    path = context.command_path if context else program
    message = one_line(error.format_message()).replace("Input should be", "must be")
    for seen in getattr(error.__cause__, "errors", list)()[:1]:
        message = f"{message} (it is {seen['input']!r})"
    return UsageError(message if message.endswith((".", "?")) else f"{message}.", f"See: {path} --help")


def _interrupted(error: BaseException) -> Interrupted:
    """Say what state an interruption left: the guard notes on the exception what it could not put back."""
    return Interrupted(
        f"Interrupted. {_noted(error) or 'State is saved and the proven configuration is in force.'}",
        "The same command starts again, with all that was recorded.",
    )


def _noted(error: BaseException) -> str:
    """Return what a guard noted on an error, each note without its cause, which the error tells."""
    return " ".join(f"{one_line(note).partition(': ')[0]}." for note in getattr(error, "__notes__", ()))


def _defect(invocation: Invocation, error: Exception) -> GenesisError:
    """Write the traceback to the log, and say in two lines what only a developer can mend."""
    logs = resolve_home(invocation.environ, invocation.project_root).logs
    with open_log(logs, run="defect") as log:
        log.error("defect", exc_info=error)
    return GenesisError(
        f"This is a defect of ours: {type(error).__name__}: {one_line(str(error)) or 'no message'}",
        f"Please report it with the traceback in {logs / LOG_NAME} (or --debug); a trial under way was put back.",
    )


def _tell(invocation: Invocation, error: GenesisError) -> int:
    trace = traceback.format_exc().splitlines(keepends=True) if invocation.debug else []
    if invocation.json:
        with suppress(GenesisError), _writable_output():
            sys.stdout.write(json_text(error_document(error)))
            sys.stdout.flush()
    with suppress(OSError):  # a terminal that is gone hears nothing; whoever started us still gets the exit code
        # line by line: what is no line of code of ours or of a library's is what was raised
        sys.stderr.writelines(map(without_passwords, trace))
        sys.stderr.write(f"{one_line(error.what)}\n{one_line(f'{error.next_step} {_noted(error)}')}\n")
        sys.stderr.flush()
    return error.exit_code
