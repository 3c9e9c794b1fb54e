"""Find out which server the user means: ``--dsn``, else ``POSTGRES_*``, else ``PG*``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from psycopg import pq

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.target.postgres.connection.settings import ConnectionSettings, check_port

POSTGRES_VARIABLES = {
    "POSTGRES_DB": "dbname",
    "POSTGRES_USER": "user",
    "POSTGRES_PASSWORD": "password",
    "POSTGRES_HOST": "host",
    "POSTGRES_PORT": "port",
}
"""The specification's variables; each may be read from the file that ``<name>_FILE`` names, as in Docker's image."""

NAMES_A_SERVER = frozenset({"host", "hostaddr", "port", "user", "dbname", "service"})
"""The parameters whose ``PG*`` variable means that the user has a server in mind; ``PGPASSWORD`` alone does not."""


def resolve_connection(dsn: str | None, environ: Mapping[str, str]) -> ConnectionSettings | None:
    """Return the connection that the user asked for, or None where nothing was given.

    The first of these that says anything names the server: `dsn`; the ``POSTGRES_*`` variables; libpq's ``PG*``
    variables. What it leaves open comes from ``PG*``, ``.pgpass`` and libpq's defaults, as for every libpq program.
    ``POSTGRES_*`` never add to a `dsn`: they may belong to another server, its password above all.

    Parameters
    ----------
    dsn : str or None
        A URI or keyword string.
    environ : mapping of str to str
        The environment. libpq reads that of the process itself, so ``PG*`` variables are passed on explicitly
        where `environ` has other values than the process.

    Raises
    ------
    UsageError
        If the DSN, a port or a password file cannot be used. A password is never shown.
    """
    libpq = _libpq_variables(environ)
    if dsn is not None:
        given = ConnectionSettings.from_dsn(dsn)
    elif postgres := _postgres_variables(environ):
        given = ConnectionSettings.of(postgres, "POSTGRES_*")
    elif NAMES_A_SERVER & libpq.keys():
        given = ConnectionSettings.of({}, "PG*")
    else:
        return None
    if "port" not in given.parameters:
        check_port(libpq.get("port", ""), "PG*")
    unknown_to_libpq = {name: value for name, value in libpq.items() if value != os.environ.get(_VARIABLE_OF[name])}
    return ConnectionSettings.of({**unknown_to_libpq, **given.parameters}, given.origin)


_VARIABLE_OF = {
    default.keyword.decode(): default.envvar.decode() for default in pq.Conninfo.get_defaults() if default.envvar
}


def _libpq_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return libpq's parameters as the ``PG*`` variables of `environ` give them."""
    return {name: environ[variable] for name, variable in _VARIABLE_OF.items() if environ.get(variable)}


def _postgres_variables(environ: Mapping[str, str]) -> dict[str, str]:
    given = {keyword: _value_or_file(variable, environ) for variable, keyword in POSTGRES_VARIABLES.items()}
    return {keyword: value for keyword, value in given.items() if value}


def _value_or_file(variable: str, environ: Mapping[str, str]) -> str:
    """Return the variable's value, or the text of the file that its ``_FILE`` twin names, without the line's end."""
    value, path = environ.get(variable, ""), environ.get(f"{variable}_FILE", "")
    if not path:
        return value
    if value:
        raise UsageError(
            f"Both {variable} and {variable}_FILE are set, and they exclude each other.", f"Unset {variable}."
        )
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(
            f"{variable}_FILE names {path!r}, which cannot be read: {reason}.",
            f"Name a readable file, or set {variable}.",
        ) from None
