"""Make, upgrade and remove schema genesis: the same files as ``setup_db.sql``, by the same rules."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from string import digits

import psycopg
from psycopg import Connection, sql
from psycopg.rows import TupleRow

from ml_postgres_optimization.errors import (
    GenesisError,
    SchemaForeign,
    SchemaMissing,
    SchemaNewer,
    TargetError,
    UnsupportedVersion,
    UsageError,
)
from ml_postgres_optimization.retry.backoff import full_jitter_seconds
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings, translated
from ml_postgres_optimization.target.postgres.connection.settings import on_one_line
from ml_postgres_optimization.target.postgres.queries import read_query
from ml_postgres_optimization.telemetry import Clock, SystemClock

_SCHEMA = files("ml_postgres_optimization.target.postgres") / "sql" / "schema"
_UPGRADE = re.compile(r"(\d{4})_\w+")
_IN_USE = "GE004"
# Each attempt keeps who works on a watched table waiting for as long as drop.sql waits, half a second; between them
# comes a pause of that length on average at first, so that these can catch up.
_DROP_ATTEMPTS = 5
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 4.0


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return names without ``.sql`` by the number that they begin with, so that 10 comes after 9."""
    stems = (name.removesuffix(".sql") for name in names if name.endswith(".sql"))
    return tuple(sorted(stems, key=lambda stem: (len(stem) - len(stem.lstrip(digits)), stem)))


def _stems(folder: str) -> tuple[str, ...]:
    return in_order(entry.name for entry in _SCHEMA.joinpath(folder).iterdir())


UPGRADES: dict[int, str] = {int(found[1]): stem for stem in _stems("") if (found := _UPGRADE.fullmatch(stem))}
"""Version → name of the file that upgrades to it."""

LATEST_VERSION = max(UPGRADES)
"""The version of the schema that this program works with."""


@dataclass(frozen=True, slots=True)
class SchemaReport:
    """What `install_schema` did.

    Parameters
    ----------
    version_before, version_after : int
        0 is none.
    applied : tuple of str
        Upgrades, ``0001_foundation`` for one; empty when it was up to date.
    lost : tuple of str
        What this role, on this server, cannot record, and how to mend it.
    """

    version_before: int
    version_after: int
    applied: tuple[str, ...]
    lost: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SchemaState:
    """Which version of schema genesis is there.

    Parameters
    ----------
    version : int
        0 is none.
    """

    version: int

    @property
    def ready(self) -> bool:
        """Whether this program can work with it."""
        return self.version == LATEST_VERSION

    @property
    def description(self) -> str:
        """One line for people."""
        if self.version == 0:
            return "schema genesis is not there"
        if self.version < LATEST_VERSION:
            return f"schema genesis is at version {self.version}, this program needs {LATEST_VERSION}"
        return f"schema genesis is at version {self.version}"


def install_schema(connection: Connection[TupleRow]) -> SchemaReport:
    """Make schema genesis or bring it up to date; all or nothing, and nothing where it is up to date.

    Raises
    ------
    SchemaForeign
        If a schema genesis is there that is not ours, or belongs to a role that this one is no member of.
    UsageError
        If it is not there, and the database publishes all its tables.
    SchemaNewer, UnsupportedVersion, PrivilegeMissing, ReadOnlyServer, ServerUnreachable, TargetError
    """
    with _translated(connection, "make schema genesis"), connection.transaction():
        connection.execute(read_query("repository/known_version"), {"version": str(LATEST_VERSION)})
        _run_file(connection, "schema/guard")
        before = _version(connection)
        for stem in _files_from(before):
            _run_file(connection, f"schema/{stem}")
        lost = connection.execute(read_query("repository/limitations")).fetchall()
        applied = tuple(stem for version, stem in sorted(UPGRADES.items()) if version > before)
        return SchemaReport(before, _version(connection), applied, tuple(text for (text,) in lost))


def setup_script(version: int = 0) -> str:
    """Return the SQL that `install_schema` runs where the schema is at `version`, to be read before it is run."""
    stems = ("guard", *_files_from(version))
    known = f"SET LOCAL genesis.known_version = '{LATEST_VERSION}';"
    return "\n".join(("BEGIN;", known, *(read_query(f"schema/{stem}") for stem in stems), "COMMIT;"))


def _files_from(version: int) -> tuple[str, ...]:
    upgrades = (stem for number, stem in sorted(UPGRADES.items()) if number > version)
    return (*upgrades, *(f"repeatable/{part}" for part in _stems("repeatable")), "finish")


def install_extension(connection: Connection[TupleRow], name: str) -> None:
    """Create an extension, on a server of our own, where it is not there yet.

    Raises
    ------
    PrivilegeMissing, ServerUnreachable, TargetError
    """
    with _translated(connection, f"create the extension {name}"):
        connection.execute(sql.SQL(read_query("schema/extension")).format(name=sql.Identifier(name)))


def set_retention(connection: Connection[TupleRow], days: int) -> None:
    """Keep windows, operations and predictions for so many days.

    Raises
    ------
    PrivilegeMissing, ReadOnlyServer, ServerUnreachable, TargetError
        TargetError also where `days` is outside 1 to 36,500.
    """
    with _translated(connection, "set the retention"), connection.transaction():
        connection.execute(read_query("schema/set_retention"), {"days": days})


def uninstall_schema(connection: Connection[TupleRow], *, clock: Clock | None = None) -> tuple[str, ...]:
    """Remove schema genesis, all that it recorded, and its triggers on watched tables; all or nothing.

    Parameters
    ----------
    clock : Clock, optional
        For the pauses between attempts while a table is in use.

    Returns
    -------
    tuple of str
        The schemas that went: ``genesis``, and ``genesis_simulation`` where simulate_load.sql had made it.

    Raises
    ------
    SchemaForeign
        If the schema genesis that is there is not ours; nothing is touched then.
    TargetError
        If objects of others depend on ours, or a table stays in use; nothing is touched then.
    PrivilegeMissing, ReadOnlyServer, ServerUnreachable
    """
    clock = clock or SystemClock()
    with _translated(connection, "drop schema genesis"):
        for attempt in range(1, _DROP_ATTEMPTS):
            try:
                return _drop(connection)
            except psycopg.Error as error:
                if error.sqlstate != _IN_USE:
                    raise
            clock.sleep(
                full_jitter_seconds(attempt, base_seconds=_FIRST_PAUSE_SECONDS, cap_seconds=_LONGEST_PAUSE_SECONDS)
            )
        return _drop(connection)


def marked_schemas(connection: Connection[TupleRow]) -> tuple[str, ...]:
    """Return the names of the schemas that `uninstall_schema` would drop.

    Raises
    ------
    ServerUnreachable, TargetError
    """
    with _translated(connection, "look for schemas of ours"):
        return tuple(name for (name,) in connection.execute(read_query("schema/marked")))


def schema_state(connection: Connection[TupleRow]) -> SchemaState:
    """Look which version is there, without changing anything.

    Raises
    ------
    SchemaForeign
        If the schema genesis that is there is not ours; or belongs to a role of less power than ours, a superuser's,
        since what the owner put into it would run with our rights.
    PrivilegeMissing
        If this role may not look into it.
    ServerUnreachable, TargetError
    """
    with _translated(connection, "look into schema genesis"), connection.transaction():
        ours = connection.execute(read_query("repository/ours")).fetchone()
        if ours is None:
            return SchemaState(0)
        if not ours[0]:
            raise SchemaForeign(
                f"Schema genesis of database {connection.info.dbname} was not made by this program.",
                "Rename that schema, or keep ours in another database: --repository.",
            )
        if lesser_owner := ours[1]:
            raise SchemaForeign(
                f"Schema genesis of database {connection.info.dbname} belongs to role {lesser_owner}, whose "
                "functions must not run for a superuser.",
                f"Connect as {lesser_owner}.",
            )
        return SchemaState(_version(connection))


def require_schema(connection: Connection[TupleRow]) -> None:
    """Make sure that schema genesis is there, in the version of this program.

    Raises
    ------
    SchemaMissing
        If it is not there, or is older.
    SchemaNewer, SchemaForeign, PrivilegeMissing, ServerUnreachable, TargetError
    """
    state = schema_state(connection)
    if state.version < LATEST_VERSION:
        raise SchemaMissing(f"In database {connection.info.dbname}, {state.description}.", "Run: genesis-pg setup")
    if state.version > LATEST_VERSION:
        raise SchemaNewer(
            f"In database {connection.info.dbname}, {state.description}, and this program knows {LATEST_VERSION}.",
            "Upgrade genesis-pg to the version that made it.",
        )


def settings_of(connection: Connection[TupleRow]) -> ConnectionSettings:
    """Return what the connection was opened with, for messages: without the password."""
    return ConnectionSettings.from_dsn(connection.info.dsn, "the open connection")


def _run_file(connection: Connection[TupleRow], name: str) -> None:
    # many statements at once: such a text cannot be prepared
    connection.execute(read_query(name), prepare=False)


def _drop(connection: Connection[TupleRow]) -> tuple[str, ...]:
    with connection.transaction():
        _run_file(connection, "schema/guard")
        ours = marked_schemas(connection)
        _run_file(connection, "schema/drop")
        return ours


def _version(connection: Connection[TupleRow]) -> int:
    if connection.execute(read_query("repository/marker")).fetchone() == (False,):
        return 0
    row = connection.execute(read_query("repository/version")).fetchone()
    return int(row[0]) if row else 0


_REFUSALS: dict[str | None, type[GenesisError]] = {
    "GE001": SchemaForeign,
    "GE002": SchemaNewer,
    "GE003": UnsupportedVersion,
    _IN_USE: TargetError,
    "GE005": UsageError,
}


@contextmanager
def _translated(connection: Connection[TupleRow], doing: str) -> Iterator[None]:
    """Raise our errors for the refusals of ``guard.sql``, with its words, and for what the server says."""
    settings = settings_of(connection)
    try:
        with translated(settings, doing):
            yield
    except psycopg.Error as error:
        said, hint = on_one_line(error.diag.message_primary or str(error)), error.diag.message_hint
        if refusal := _REFUSALS.get(error.sqlstate):
            raise refusal(said, hint or "") from error
        raise TargetError(
            f"The server at {settings.display} did not let us {doing}: {said} (SQLSTATE {error.sqlstate})",
            hint or "This is a defect of genesis-pg if the schema was not changed by hand; please report it.",
        ) from error
