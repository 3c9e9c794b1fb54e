"""What a server lets the load do: found out once, before the load begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import psycopg
from psycopg import Connection
from psycopg.rows import TupleRow

from ml_postgres_optimization.errors import SchemaMissing, UsageError
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings, connect, translated
from ml_postgres_optimization.workload.plan import LoadPlan
from ml_postgres_optimization.workload.script import ScriptMix
from ml_postgres_optimization.workload.statements import query
from ml_postgres_optimization.workload.tables import account_count, scale_seen_by

APPLICATION_NAME = "genesis-load"
CONNECT_TIMEOUT_SECONDS = 10.0
_MOST_KEYS = 1 << 31
_DRIVER_TAKES = ("sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslpassword", "sslnegotiation")


@dataclass(frozen=True, slots=True)
class Admission:
    """What the server lets the load do.

    Parameters
    ----------
    connect : mapping of str to object
        Arguments for ``asyncpg.connect``; never shown, since a password may be among them.
    free_connections : int
        What may be opened: ``max_connections`` less the reserved ones and those in use.
    account_count : int
        Accounts in the tables of the load.
    zipf_exponent : float
        Skew of the keys.
    settings : ConnectionSettings
        Where it was asked.
    """

    connect: Mapping[str, Any] = field(repr=False)
    free_connections: int
    account_count: int
    zipf_exponent: float
    settings: ConnectionSettings

    def check_connections(self, connections: int) -> None:
        """Refuse more connections than the server has free.

        Raises
        ------
        UsageError
        """
        if connections > self.free_connections:
            raise UsageError(
                f"The load wants {connections} connections, and the server has {self.free_connections} free.",
                f"Choose at most {self.free_connections}, or raise max_connections.",
            )

    def refusal_of(self, session_settings: Mapping[str, str]) -> str | None:
        """Return why the server would not let a session SET these; None where it would.

        Raises
        ------
        ServerUnreachable, AuthenticationFailed, TargetError
        """
        with connect(self.settings, purpose="load") as connection, translated(self.settings, "try settings"):
            try:
                _try_settings(connection, session_settings)
            except UsageError as refusal:
                return refusal.what
        return None


def admit(dsn: str, plan: LoadPlan) -> Admission:
    """Find out whether the server takes the load of `plan`.

    libpq resolves `dsn` with everything it knows (environment, service files, ``.pgpass``, several hosts), and
    what it arrived at is what asyncpg is told, since that one knows less.

    Raises
    ------
    UsageError
        If the server has too few free connections, or refuses a session setting; or the plan uses more accounts
        than there are.
    SchemaMissing
        If the tables of the load are not there.
    ServerUnreachable, AuthenticationFailed, SchemaForeign, TargetError
    """
    settings = ConnectionSettings.from_dsn(dsn)
    is_script = isinstance(plan.mix, ScriptMix)
    with connect(settings, purpose="load") as connection, translated(settings, "prepare the load"):
        admission = Admission(
            connect=_driver_arguments(connection),
            free_connections=_free(connection),
            # a script knows no accounts: all numbers are as likely, and seed what it draws
            account_count=_MOST_KEYS if is_script else _accounts(connection),
            zipf_exponent=0.0 if is_script else plan.zipf_exponent,
            settings=settings,
        )
        admission.check_connections(plan.connections)
        _check_keys(plan, admission.account_count)
        _try_settings(connection, plan.session_settings)
        return admission


def _accounts(connection: Connection[TupleRow]) -> int:
    scale = scale_seen_by(connection)
    if scale is None:
        raise SchemaMissing("The tables of the load are not there.", "Make them: genesis-pg simulate makes them.")
    return account_count(scale)


def free_connections(dsn: str) -> int:
    """Return how many connections an ordinary role may open now: ``max_connections`` less reserved and used ones.

    Raises
    ------
    ServerUnreachable, AuthenticationFailed, TargetError
    """
    settings = ConnectionSettings.from_dsn(dsn)
    with connect(settings, purpose="load") as connection, translated(settings, "count connections"):
        return _free(connection)


def _driver_arguments(connection: Connection[TupleRow]) -> dict[str, Any]:
    info = connection.info
    parameters = info.get_parameters()
    taken = {name: parameters[name] for name in _DRIVER_TAKES if parameters.get(name)}
    server_settings = {"application_name": APPLICATION_NAME}
    if parameters.get("options"):
        server_settings["options"] = parameters["options"]
    return {
        "dsn": "postgresql:///?" + urlencode(taken),
        "host": parameters.get("hostaddr") or info.host,
        "port": info.port,
        "user": info.user,
        "password": info.password or None,
        "database": info.dbname,
        "timeout": CONNECT_TIMEOUT_SECONDS,
        "server_settings": server_settings,
    }


def _free(connection: Connection[TupleRow]) -> int:
    row = connection.execute(query("session/free_connections")).fetchone()
    return int(row[0]) if row else 0


def _check_keys(plan: LoadPlan, accounts: int) -> None:
    if plan.key_count is not None and plan.key_count > accounts:
        raise UsageError(
            f"key_count is {plan.key_count:,}.", f"Choose at most {accounts:,}: there are no more accounts."
        )


def _try_settings(connection: Connection[TupleRow], session_settings: Mapping[str, str]) -> None:
    """SET each in a session that is closed right after, so that a wrong one is refused before the load begins."""
    for name, value in session_settings.items():
        try:
            connection.execute(query("session/setting"), {"name": name, "value": value})
        except psycopg.DatabaseError as error:
            if connection.closed:
                raise
            raise UsageError(
                f"The server refuses the session setting {name} = {value}: {error.diag.message_primary}",
                "Correct it; only what SET can change may be given here.",
            ) from error
