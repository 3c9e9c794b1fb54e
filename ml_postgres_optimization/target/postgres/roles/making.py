"""Which statements make the three roles on a server as it is, or bring them up to date; and running them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import Connection, sql

from ml_postgres_optimization.errors import PrivilegeMissing, SchemaForeign, TargetError
from ml_postgres_optimization.target.capabilities import Capabilities
from ml_postgres_optimization.target.postgres.connection import translated
from ml_postgres_optimization.target.postgres.connection.settings import on_one_line
from ml_postgres_optimization.target.postgres.queries import read_query
from ml_postgres_optimization.target.postgres.roles.names import ADVISE, OBSERVE, ROLES, TUNE, composed, roles_found
from ml_postgres_optimization.target.postgres.schema import settings_of

# Few for who looks; for who tunes, room for our own dozen and a small load of ours.
_CONNECTIONS = {OBSERVE: 5, ADVISE: 10, TUNE: 40}
_PURPOSES = {
    OBSERVE: "sees statistics and what was recorded, and changes nothing",
    ADVISE: "observes, and works out what to advise",
    TUNE: "advises, keeps what is recorded, and changes the settings that it was granted",
}
_FIRST_WITH_PARAMETER_GRANTS = 15


@dataclass(frozen=True, slots=True)
class RolesPlan:
    """What would be done for the roles.

    Parameters
    ----------
    statements : tuple of str
        In order, each complete, for one transaction.
    made : tuple of str
        The roles that are not there yet.
    revoked : tuple of str
        Parameters that the role that tunes was granted, and is no longer to change.
    notes : tuple of str
        What is not granted, and why.
    """

    statements: tuple[str, ...]
    made: tuple[str, ...]
    revoked: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def script(self) -> str:
        """The same for ``psql``, with the notes as comments."""
        notes = "\n".join(f"-- {on_one_line(note)}" for note in self.notes)
        return "\n".join(("BEGIN;", *self.statements, "COMMIT;", *([notes] if notes else [])))


def plan_roles(
    connection: Connection[Any],
    capabilities: Capabilities,
    parameters: Iterable[str],
    *,
    kept: Iterable[str] = (),
    with_schema: bool = True,
) -> RolesPlan:
    """Work out what makes the roles, or brings them up to date; nothing is changed.

    Parameters
    ----------
    connection : psycopg.Connection
        To the database that is to be tuned.
    capabilities : Capabilities
        Of the same server, and of the role that would run it.
    parameters : iterable of str
        What the role that tunes shall be able to change.
    kept : iterable of str
        What it may go on to change where somebody granted it, though we do not.
    with_schema : bool
        Whether schema genesis stands in this database.

    Raises
    ------
    TargetError
        If a role of such a name is there that is not ours, or the server cannot be read.
    SchemaForeign
        If a schema genesis is there that is not ours.
    """
    with translated(settings_of(connection), "look at roles and grants"):
        found = roles_found(connection)
        _refuse_strangers(found)
        made = tuple(name for name in ROLES if name not in found)
        granted = _granted(connection)
        wanted = sorted(parameters) if _has_parameter_grants(capabilities) else []
        revoked = tuple(sorted(granted - {*parameters, *kept}))
        statements = (
            *composed(connection, "limits"),
            *_roles(connection, capabilities, made),
            *(_schema(connection) if with_schema else ()),
            *_rights(connection, capabilities, wanted, revoked),
        )
        return RolesPlan(statements, made, revoked, tuple(_notes(connection, capabilities)))


def make_roles(connection: Connection[Any], plan: RolesPlan) -> None:
    """Do what was planned; all or nothing.

    Raises
    ------
    PrivilegeMissing
        If our role may not; usually that takes a superuser.
    TargetError
        If the server refuses it for another reason.
    """
    settings = settings_of(connection)
    try:
        with translated(settings, "make roles"), connection.transaction():
            for statement in plan.statements:
                connection.execute(statement, prepare=False)
    except PrivilegeMissing as error:
        raise PrivilegeMissing(
            error.what, "Have a superuser run what this prints: genesis-pg setup --roles --dry-run"
        ) from error
    except psycopg.Error as error:
        said = on_one_line(error.diag.message_primary or str(error))
        raise TargetError(
            f"The server at {settings.display} did not let us make roles: {said} (SQLSTATE {error.sqlstate})",
            "Nothing was changed. What would be run: genesis-pg setup --roles --dry-run",
        ) from error


def _refuse_strangers(found: dict[str, bool]) -> None:
    for name, is_ours in found.items():
        if not is_ours:
            raise TargetError(
                f"Role {name} is there, and was not made by genesis-pg.",
                f"Rename it; or let us use it: COMMENT ON ROLE {name} IS 'genesis-pg';",
            )


def _granted(connection: Connection[Any]) -> set[str]:
    query = read_query("roles/granted", connection.info.server_version // 10_000)
    return {name for (name,) in connection.execute(query, {"role": TUNE}).fetchall()}


def _has_parameter_grants(capabilities: Capabilities) -> bool:
    is_left_to_us = capabilities.alter_system_allowed and not capabilities.managed_by
    return is_left_to_us and capabilities.major >= _FIRST_WITH_PARAMETER_GRANTS


def _roles(connection: Connection[Any], capabilities: Capabilities, made: Iterable[str]) -> Iterator[str]:
    for name in made:
        role = sql.Identifier(name)
        purpose = sql.Literal(f"genesis-pg: {_PURPOSES[name]}; made by genesis-pg setup --roles")
        yield from composed(connection, "create", role=role, limit=sql.Literal(_CONNECTIONS[name]), purpose=purpose)
        if name != TUNE:  # it costs each statement of our own load 4 us, and what else it runs sets its own
            yield from composed(connection, "statement_timeout", role=role)
    if not capabilities.is_superuser:
        yield from composed(connection, "member")
    yield from composed(connection, "hierarchy")
    yield from composed(connection, "monitor")
    yield from composed(connection, "database", database=sql.Identifier(capabilities.database))
    for extension, role_name in (("pg_stat_statements", OBSERVE), ("dblink", TUNE)):
        if capabilities.has_extension(extension):
            schema = sql.Identifier(capabilities.extensions[extension][1])
            yield from composed(connection, "usage", schema=schema, role=sql.Identifier(role_name))


def _schema(connection: Connection[Any]) -> Iterator[str]:
    """Have schema genesis, made already or not, belong to the role that tunes."""
    found = connection.execute(read_query("repository/ours")).fetchone()
    if found and not found[0]:
        raise SchemaForeign(
            f"Schema genesis of database {connection.info.dbname} was not made by this program.",
            "Rename that schema, or keep ours in another database: --repository.",
        )
    if found is None:
        yield from composed(connection, "make_schema")
    owned = connection.execute(read_query("roles/owned_by_others"), {"role": TUNE}).fetchall()
    if strangers := sorted({owner for _, _, owner, is_trusted in owned if not is_trusted}):
        raise SchemaForeign(
            f"Schema genesis of database {connection.info.dbname} holds what role {', '.join(strangers)} has made, "
            f"which would run with the rights of {TUNE}.",
            f"Have its owner take it away: genesis-pg uninstall. Or look at it, and let it belong to {TUNE}.",
        )
    for kind, identity, _, _ in owned:
        yield from composed(connection, "own", kind=sql.SQL(kind), identity=sql.SQL(identity))
    yield from composed(connection, "schema")


def _rights(
    connection: Connection[Any], capabilities: Capabilities, wanted: list[str], revoked: tuple[str, ...]
) -> Iterator[str]:
    """Let the role that tunes see and change settings, where the server lets that be granted."""
    if not capabilities.managed_by:
        yield from composed(connection, "files")
    if wanted:
        yield from composed(connection, "parameters", names=_listed(wanted))
    if revoked:
        yield from composed(connection, "revoke", names=_listed(revoked))


def _listed(names: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.SQL(".").join(map(sql.Identifier, name.split("."))) for name in names)


def _notes(connection: Connection[Any], capabilities: Capabilities) -> Iterator[str]:
    if capabilities.managed_by:
        yield f"{capabilities.managed_by} manages the settings of this server: {TUNE} was granted none of them."
    elif not capabilities.alter_system_allowed:
        yield f"allow_alter_system is off: {TUNE} was granted no setting; do this again should it be on one day."
    elif not _has_parameter_grants(capabilities):
        yield (
            f"PostgreSQL {capabilities.major} lets only superusers change settings of the server: {TUNE} cannot, and "
            "advises; from 15 on it can be granted."
        )
    if capabilities.has_extension("dblink"):
        function = sql.Identifier(capabilities.extensions["dblink"][1], "dblink_connect_u")
        (grant,) = composed(connection, "guard_session", connect=function)
        yield (
            "Not granted, as where pg_hba.conf lets the server's own account in as a superuser it opens that door to "
            f"{TUNE} too: what the guard session in the server needs ({grant}). The watchdog stands by without it."
        )
