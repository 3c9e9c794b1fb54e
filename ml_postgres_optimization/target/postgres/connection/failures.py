"""Turn what libpq and the server say into the errors of this product: two lines, the value seen, the next step."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable

import psycopg

from ml_postgres_optimization.errors import (
    AuthenticationFailed,
    GenesisError,
    PrivilegeMissing,
    ReadOnlyServer,
    ServerUnreachable,
    TargetError,
    UsageError,
)
from ml_postgres_optimization.target.postgres.connection.settings import (
    HOW_TO_WRITE,
    ConnectionSettings,
    libpq_defaults,
    on_one_line,
)

_WHERE_IT_HAPPENED = re.compile(
    r"^(.*connection (failed|is bad): )?(connection to server .*? failed: )?((FATAL|ERROR):\s+)?"
)
_CONNECTION_IS_GONE = re.compile(r"08...|57P0[1235]|25P0[34]")
_SERVER_IS_IN_TROUBLE = re.compile(r"53...|58...|XX...")


def connect_failure(error: Exception, settings: ConnectionSettings) -> GenesisError:
    """Return our error for a connection that could not be made.

    Notes
    -----
    psycopg gives no SQLSTATE in this phase, so the text decides; a server that speaks another language than English
    is told apart by less, and what is not recognised counts as unreachable, with the server's own words.
    """
    text = str(error)
    for pattern, explain in _CONNECT_FAILURES:
        if found := pattern.search(text):
            return explain(_lines_around(text, found.start(), found.end()), settings)
    return _unreachable(_lines_around(text), settings)


def statement_failure(error: psycopg.Error, settings: ConnectionSettings, doing: str) -> GenesisError | None:
    """Return our error for a statement that failed, or None where the error is the caller's to handle.

    Parameters
    ----------
    doing : str
        What was tried, to follow "may not": ``read pg_file_settings``.
    """
    code, said = error.sqlstate, _lines_around(error.diag.message_primary or str(error))
    lost_without_code = code is None and isinstance(error, psycopg.OperationalError)
    if lost_without_code or _CONNECTION_IS_GONE.fullmatch(code or ""):
        return ServerUnreachable(
            f"The connection to {settings.display} was lost: {said}",
            "Check that the server runs (pg_isready) and start again; what was under way is undone then.",
        )
    if code in _EXPLAINED:
        return _EXPLAINED[code](said, settings, doing)
    if _SERVER_IS_IN_TROUBLE.fullmatch(code or ""):
        return TargetError(
            f"The server at {settings.display} failed: {said} (SQLSTATE {code})",
            "Look into the server's log and mend this first; nothing can be tuned on a server in trouble.",
        )
    return None


def _lines_around(text: str, start: int = 0, end: int = 0) -> str:
    """Return the lines of `text` from `start` to `end` as one, without the driver's words before the server's."""
    first, last = text.rfind("\n", 0, start) + 1, text.find("\n", end)
    lines = text[first : last if last >= 0 else None]
    return on_one_line(_WHERE_IT_HAPPENED.sub("", lines, count=1).strip())


def _unreachable(said: str, settings: ConnectionSettings) -> GenesisError:
    return ServerUnreachable(
        f"No connection to {settings.display}: {said}",
        "Check that PostgreSQL runs and listens there (pg_isready), and host and port in "
        f"{settings.origin}; a firewall may be between.",
    )


def _no_such_database(said: str, settings: ConnectionSettings) -> GenesisError:
    known = {**libpq_defaults(), **settings.parameters}
    options = {"-h": known.get("host"), "-p": known.get("port"), "-U": known.get("user")}
    database = known.get("dbname") or known.get("user") or ""
    given = [part for option, value in options.items() if value for part in (option, value)]
    command = shlex.join(["createdb", *given, database])
    return TargetError(
        f"The server answers, but cannot open the database of {settings.display}: {said}",
        f"Name another database, or make it: {on_one_line(command)}",
    )


def _no_such_role(said: str, settings: ConnectionSettings) -> GenesisError:
    return AuthenticationFailed(
        f"The server refused the role of {settings.display}: {said}",
        f"Name another role in {settings.origin}, or have a superuser make this one: CREATE ROLE … LOGIN.",
    )


def _wrong_password(said: str, settings: ConnectionSettings) -> GenesisError:
    ways = "POSTGRES_PASSWORD or ~/.pgpass" if settings.origin == "POSTGRES_*" else "PGPASSWORD or ~/.pgpass"
    return AuthenticationFailed(
        f"The server refused to log in {settings.display}: {said}",
        f"Check the role's name, and give its password by {ways}.",
    )


def _not_in_pg_hba(said: str, settings: ConnectionSettings) -> GenesisError:
    return AuthenticationFailed(
        f"The server does not let {settings.display} in from here: {said}",
        "Add a line for this role, database and address to the server's pg_hba.conf and reload it; "
        "if the server wants encryption, use sslmode=require.",
    )


def _bad_certificate(said: str, settings: ConnectionSettings) -> GenesisError:
    return AuthenticationFailed(
        f"No secure connection to {settings.display}: {said}",
        "Check sslmode, sslrootcert, sslcert and sslkey (PGSSLMODE, PGSSLROOTCERT, …) against the server's.",
    )


def _may_not_connect(said: str, settings: ConnectionSettings) -> GenesisError:
    return PrivilegeMissing(
        f"The role of {settings.display} may not connect to this database: {said}",
        "Its owner can grant it: GRANT CONNECT ON DATABASE … TO …",
    )


def _no_free_connection(said: str, settings: ConnectionSettings) -> GenesisError:
    return ServerUnreachable(
        f"The server at {settings.display} has no free connection: {said}",
        "Close some sessions, raise max_connections, or use a role that may take a reserved connection.",
    )


def _not_ready(said: str, settings: ConnectionSettings) -> GenesisError:
    return ServerUnreachable(
        f"The server at {settings.display} takes no connections now: {said}",
        "Wait until it is up (pg_isready says when) and start again.",
    )


def _not_a_primary(said: str, settings: ConnectionSettings) -> GenesisError:
    return ReadOnlyServer(
        f"No writable server at {settings.display}: {said}",
        "Name the primary's host; only a primary can be tuned.",
    )


def _wrong_parameter(said: str, settings: ConnectionSettings) -> GenesisError:
    return UsageError(f"The connection in {settings.origin} cannot be used: {said}", HOW_TO_WRITE)


Explanation = Callable[[str, ConnectionSettings], GenesisError]
_CONNECT_FAILURES: tuple[tuple[re.Pattern[str], Explanation], ...] = tuple(
    (re.compile(pattern, re.DOTALL), explain)
    for pattern, explain in (
        (r"password authentication failed|no password supplied|empty password", _wrong_password),
        (r"pg_hba\.conf", _not_in_pg_hba),
        (r'role ".*?" (does not exist|is not permitted to log in)', _no_such_role),
        (r'permission denied for database "', _may_not_connect),
        (r'database ".*?" (does not exist|is not currently accepting connections)', _no_such_database),
        (r"too many (clients|connections)|remaining connection slots", _no_free_connection),
        (r"the database system is (starting|shutting|in recovery|not)", _not_ready),
        (r"session is (not )?read-only|server is (not )?in hot standby", _not_a_primary),
        (r"certificate|SSL|GSSAPI", _bad_certificate),
        (r"authentication failed|authentication method|SCRAM", _wrong_password),
        (r"invalid [^\n]*(value|port number)|bad value for|could not (match|parse)|idna", _wrong_parameter),
        (r'definition of service|service file "', _wrong_parameter),
    )
)


def _privilege_missing(said: str, settings: ConnectionSettings, doing: str) -> GenesisError:
    return PrivilegeMissing(
        f"The role of {settings.display} may not {doing}: {said}",
        "Have it granted by a superuser, or connect as a role that may.",
    )


def _read_only(said: str, settings: ConnectionSettings, doing: str) -> GenesisError:
    return ReadOnlyServer(
        f"{settings.display} is read-only, so we cannot {doing}: {said}",
        "Connect to the primary, or take default_transaction_read_only off for this role and database.",
    )


def _cancelled(said: str, settings: ConnectionSettings, doing: str) -> GenesisError:
    return TargetError(
        f"The server at {settings.display} ended a statement of ours (to {doing}): {said}",
        "Try again when it is less busy; if it was the time-out, the server needs longer for this than it should.",
    )


def _locked_out(said: str, settings: ConnectionSettings, doing: str) -> GenesisError:
    return TargetError(
        f"Another session on {settings.display} holds a lock that we need to {doing}: {said}",
        "Try again when it is done; pg_blocking_pids() and pg_stat_activity show who holds it.",
    )


def _broken_file(said: str, settings: ConnectionSettings, doing: str) -> GenesisError:
    return TargetError(
        f"{settings.display} cannot {doing}: {said}",
        "Mend that file by hand; or keep a copy and empty it: ALTER SYSTEM RESET ALL.",
    )


_EXPLAINED: dict[str | None, Callable[[str, ConnectionSettings, str], GenesisError]] = {
    "42501": _privilege_missing,
    "25006": _read_only,
    "57014": _cancelled,
    "55P03": _locked_out,
    "F0000": _broken_file,
}
