"""Which server, database and role: libpq's parameters, with its secrets kept out of sight."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

import psycopg
from psycopg import Connection, pq
from psycopg.conninfo import conninfo_to_dict

from ml_postgres_optimization.errors import UsageError

HOW_TO_WRITE = "Write postgresql://user@host:5432/database, or 'host=… port=… dbname=… user=…'."
_MAY_HOLD_A_SECRET = re.compile(r"@|pass|secret|key", re.IGNORECASE)
# libpq shows the word that it could make nothing of: a password in the wrong place is one
_SHOWS_A_STRAY_WORD = re.compile(
    r'(missing "=" after|(?:key/value separator "=" in URI query parameter|percent-encoded token|\bin URI .*?):) ".*"'
)


@dataclass(frozen=True, slots=True, repr=False)
class ConnectionSettings:
    """The parameters of a connection that were given to us; libpq adds its own defaults to them.

    Parameters
    ----------
    keywords : tuple of (str, str)
        Parameters by libpq's names, none empty; `of` and `from_dsn` make it.
    origin : str
        Where they come from, for messages: ``--dsn``, ``POSTGRES_*`` or ``PG*``.

    Notes
    -----
    Neither `repr` nor `display` shows a password. `dsn_for_driver` holds it: hand it to a driver, show it to nobody.

    Examples
    --------
    >>> settings = ConnectionSettings.from_dsn("postgresql://tuner:secret@db.example:5433/shop")
    >>> settings.display
    'tuner@db.example:5433/shop'
    >>> settings
    ConnectionSettings(tuner@db.example:5433/shop, from --dsn)

    References
    ----------
    PostgreSQL's manual, "Database Connection Control Functions", Parameter Key Words.
    """

    keywords: tuple[tuple[str, str], ...]
    origin: str = "--dsn"

    @classmethod
    def of(cls, parameters: Mapping[str, str | int | None], origin: str = "--dsn") -> ConnectionSettings:
        """Make settings of `parameters`; what is None or empty counts as not given, as it does for libpq.

        Raises
        ------
        UsageError
            If a port is no number from 1 to 65535, or a value cannot be sent to a server.
        """
        given = {name: str(value) for name, value in parameters.items() if value not in (None, "")}
        _check_text(given, origin)
        check_port(given.get("port", ""), origin)
        return cls(tuple(sorted(given.items())), origin)

    @classmethod
    def from_dsn(cls, dsn: str, origin: str = "--dsn") -> ConnectionSettings:
        """Read a URI or a keyword string, in libpq's syntax.

        Raises
        ------
        UsageError
            If it cannot be read; the text is shown only where it cannot hold a password.
        """
        if not dsn.strip():
            raise UsageError(f"{origin} is empty, so it names no server.", HOW_TO_WRITE)
        try:
            return cls.of({name: str(value) for name, value in conninfo_to_dict(dsn).items()}, origin)
        except psycopg.ProgrammingError as error:
            reason = str(error).strip()
        except ValueError:
            reason = "it is not UTF-8"
        if _MAY_HOLD_A_SECRET.search(dsn):
            reason = "its syntax is wrong (not shown here, as it may hold a password)"
        reason = _SHOWS_A_STRAY_WORD.sub(r"\1 a word that is not shown, as it may be a password", on_one_line(reason))
        raise UsageError(f"{origin} cannot be read: {reason}", HOW_TO_WRITE)

    @property
    def parameters(self) -> dict[str, str]:
        """The parameters by libpq's names, secrets included."""
        return dict(self.keywords)

    @property
    def display(self) -> str:
        """``user@host:port/dbname`` for messages, completed from libpq's defaults and the ``PG*`` variables."""
        given = self.parameters
        known = {**libpq_defaults(), **given}
        host = known.get("host") or known.get("hostaddr") or "[local]"
        if "service" in given and not ("host" in given or "hostaddr" in given):
            host = f"[service {given['service']}]"
        if ":" in host and not host.startswith("["):
            host = f"[{host}]"
        user = known.get("user", "")
        return on_one_line(f"{user}@{host}:{known.get('port', '5432')}/{known.get('dbname') or user}")

    def dsn_for_driver(self) -> str:
        """Return all parameters, secrets included, as a URI: the form that psycopg and asyncpg both read."""
        return "postgresql:///?" + "&".join(f"{name}={quote(value, safe='')}" for name, value in self.keywords)

    def replaced(self, **parameters: str | int | None) -> ConnectionSettings:
        """Return settings with `parameters` put over these; None takes one away."""
        return ConnectionSettings.of({**self.parameters, **parameters}, self.origin)

    def pinned(self, connection: Connection[object]) -> ConnectionSettings:
        """Return settings that lead to the very server that `connection` reached, where several hosts are named."""
        info = connection.info
        return self.replaced(
            host=info.host,
            hostaddr=info.hostaddr if "hostaddr" in self.parameters else None,
            port=info.port,
            user=info.user,
            dbname=info.dbname,
        )

    def __repr__(self) -> str:
        return f"ConnectionSettings({self.display}, from {self.origin})"

    def __str__(self) -> str:
        return self.display


def libpq_defaults() -> dict[str, str]:
    """Return what libpq takes where nothing is given: ``PG*`` variables, a service file, its own values."""
    return {
        default.keyword.decode(): default.val.decode(errors="replace")
        for default in pq.Conninfo.get_defaults()
        if default.val
    }


def check_port(ports: str, origin: str) -> None:
    """Refuse what is no port; several hosts have several, with commas between them.

    Raises
    ------
    UsageError
        If one of them is no number from 1 to 65535.
    """
    for port in ports.split(",") if ports else ():
        digits = port.strip().isascii() and port.strip().isdigit()
        if port and not (digits and 1 <= int(port) <= 65535):
            raise UsageError(
                f"{_port_seen(port, digits, origin)}: it must be a number from 1 to 65535.",
                "Give the port that PostgreSQL listens on, 5432 by default.",
            )


def _port_seen(port: str, digits: bool, origin: str) -> str:
    """Return which port is none; in ``postgresql://user:password/shop`` the password stands where a port would."""
    variable = {"POSTGRES_*": "POSTGRES_PORT", "PG*": "PGPORT"}.get(origin)
    if variable or digits:
        return f"{variable or f'The port in {origin}'} is {port!r}, which is no port"
    return f"The port in {origin} is no port (not shown here, as it may be a password)"


def _check_text(parameters: Mapping[str, str], origin: str) -> None:
    for name, value in parameters.items():
        try:
            sendable = "\0" not in value and bool(value.encode())
        except UnicodeEncodeError:
            sendable = False
        if not sendable:
            raise UsageError(
                f"Parameter {on_one_line(name)} ({origin}) holds a zero byte or is not UTF-8.",
                "Give it in UTF-8; other bytes can be written as %XX in a URI only if they make up UTF-8.",
            )


def on_one_line(text: str) -> str:
    """Return `text` without what could break a message into lines or play with a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)
