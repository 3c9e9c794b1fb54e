"""Whether a server is one that faults may strike: behind a Unix socket, or on loopback."""

from __future__ import annotations

import ipaddress

from psycopg import Connection
from psycopg.conninfo import conninfo_to_dict

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings

_SOCKET_SIGNS = ("/", "@")


def check_local(dsn: str) -> None:
    """Refuse a connection string that does not say itself that its server is here.

    Nothing is connected for that. What libpq would take from the environment or from a service file does not count,
    and of several hosts each must be here.

    Raises
    ------
    UsageError
    """
    settings = ConnectionSettings.from_dsn(dsn)
    parameters = settings.parameters
    named = [*parameters.get("host", "").split(","), *parameters.get("hostaddr", "").split(",")]
    hosts = [host for host in named if host]
    if not hosts or not all(is_local(host) for host in hosts):
        raise _not_here(", ".join(hosts) or "no host", settings)


def check_arrived(connection: Connection[object], settings: ConnectionSettings) -> None:
    """Refuse a connection that has arrived elsewhere: ``PGHOSTADDR`` may lead from localhost to anywhere.

    Raises
    ------
    UsageError
    """
    info = connection.info
    if not is_local(info.hostaddr or info.host):
        raise _not_here(info.hostaddr or info.host, settings)


def is_local(host: str) -> bool:
    """Tell whether a host is a folder of Unix sockets, or loopback.

    Examples
    --------
    >>> [is_local(host) for host in ("/run/postgresql", "localhost", "127.0.0.2", "::1", "10.0.0.1", "db.example")]
    [True, True, True, True, False, False]
    """
    if host.startswith(_SOCKET_SIGNS) or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_and_port(dsn: str) -> tuple[str, int]:
    """Return where a server that `check_local` has let pass listens; the first, where several are named."""
    parameters = conninfo_to_dict(dsn)
    host = str(parameters.get("hostaddr") or parameters.get("host")).split(",")[0]
    return host, int(str(parameters.get("port") or 5432).split(",")[0])


def _not_here(seen: str, settings: ConnectionSettings) -> UsageError:
    return UsageError(
        f"Faults are for servers on this machine, and {settings.display} names {seen}.",
        "Name a host on loopback or the folder of a Unix socket in the connection string itself.",
    )
