"""Read and write what ``ALTER ROLE … IN DATABASE … SET`` gives to the new sessions of a role."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import psycopg
from psycopg import Connection
from psycopg.rows import class_row, dict_row

from ml_postgres_optimization.errors import ChangeRefused, PrivilegeMissing
from ml_postgres_optimization.knobs.configuration import RoleSetting
from ml_postgres_optimization.knobs.knob import KnobValue, Setting
from ml_postgres_optimization.knobs.rendering import parse, written_text
from ml_postgres_optimization.target.postgres.connection import LastingConnection
from ml_postgres_optimization.target.postgres.queries import alter_role, read_query
from ml_postgres_optimization.target.protocols import Condition, always
from ml_postgres_optimization.target.seen import RoleSeen

_REFUSALS = frozenset({"22023", "42704", "55P02", "3D000"})
"""Invalid value, no such parameter or role, a parameter that cannot change, no such database."""
_MEANWHILE = frozenset({"55P03", "XX000", "23505"})
"""Somebody else changes the same role: a lock, "tuple concurrently updated", and an entry made by both at once."""
_MOST_TRIES = 5


class RoleSettings:
    """The settings of roles on a server; the part of `PostgresTarget` for names that are `RoleSetting` keys.

    Parameters
    ----------
    session : LastingConnection
        In which the server is changed: what ends it keeps anything more from coming.

    Notes
    -----
    What is read is what stands in the catalogue, committed: nobody can log in as the role to look. It is compared and
    set in one transaction, whose commit is on disk when it returns.
    """

    def __init__(self, session: LastingConnection) -> None:
        self._session = session

    def settings(self, keys: Iterable[str]) -> Mapping[str, Setting]:
        """Return what new sessions of these roles have; of a role or database that there is not, nothing.

        Raises
        ------
        ServerUnreachable
            If the server is gone.
        """
        wanted = [key for key in keys if RoleSetting.of(key)]
        if not wanted:
            return {}
        return self._session.run(lambda connection: _read(connection, wanted), "read the settings of roles")

    def role(self, name: str) -> RoleSeen | None:
        """Return what a role is; None where there is none of that name.

        Raises
        ------
        ServerUnreachable
            If the server is gone.
        """
        return self._session.run(lambda connection: _role(connection, name), "look at a role")

    def write(self, key: str, value: KnobValue, *, only_if: Condition = always) -> bool:
        """Give `value` (base units) to the role's new sessions, in the session that holds the lock and in no other.

        Raises
        ------
        ChangeRefused
            If the server refuses it, or the role is a superuser, ours, or gone.
        PrivilegeMissing
            If our role may not.
        """
        setting = _setting_of(key)

        def compare_and_set(connection: Connection[Any]) -> bool:
            seen = _role(connection, setting.role)
            if seen is None or seen.is_superuser or seen.is_ours:
                raise ChangeRefused(f"{setting} was not changed: see what that role is.", "Name another role.")
            return _compare_and_set(connection, setting, written_text(value), only_if)

        return self._changed(
            setting, lambda: self._session.run_bound(_once(setting, compare_and_set), f"set {setting}")
        )

    def restore(self, key: str, written_value: str | None, *, only_if: Condition = always) -> bool:
        """Put back what stood there; where the session is lost, the next one compares again.

        Raises
        ------
        ChangeRefused
            If the server refuses it, or somebody else is at the same role all the time.
        PrivilegeMissing
            If our role may not.
        """
        setting = _setting_of(key)

        def compare_and_set(connection: Connection[Any]) -> bool:
            return _compare_and_set(connection, setting, written_value, only_if)

        for tries_left in reversed(range(_MOST_TRIES)):
            try:
                return self._changed(
                    setting, lambda: self._session.run(_once(setting, compare_and_set), f"set {setting}")
                )
            except _OthersAtWork:
                if not tries_left:
                    raise
        return False

    def _changed(self, setting: RoleSetting, change: Callable[[], bool]) -> bool:
        try:
            return change()
        except PrivilegeMissing as error:
            raise PrivilegeMissing(error.what, f"It takes {grants(setting.role)}.") from error
        except psycopg.Error as error:
            if error.sqlstate not in _REFUSALS:
                raise
            raise ChangeRefused(
                f"{setting} was not changed: {error.diag.message_primary}", "See whether that role is still there."
            ) from error


class _OthersAtWork(ChangeRefused):
    """Somebody else changes the same role right now."""


def _once(setting: RoleSetting, change: Callable[[Connection[Any]], bool]) -> Callable[[Connection[Any]], bool]:
    """Let what comes of somebody else's change of the same role be a refusal, and no trouble of the server's."""

    def changed(connection: Connection[Any]) -> bool:
        try:
            return change(connection)
        except psycopg.Error as error:
            if error.sqlstate not in _MEANWHILE:
                raise
            raise _OthersAtWork(
                f"{setting} was not changed: somebody else changes that role right now "
                f"({error.diag.message_primary}).",
                "It is tried again later.",
            ) from error

    return changed


def grants(role: str) -> str:
    """Say what lets our role give settings to another."""
    return f"CREATEROLE and, from PostgreSQL 16 on, the ADMIN OPTION on role {role}"


def _setting_of(key: str) -> RoleSetting:
    setting = RoleSetting.of(key)
    if setting is None:
        raise ValueError(f"{key!r} is no setting of a role")
    return setting


def _compare_and_set(
    connection: Connection[Any], setting: RoleSetting, written_value: str | None, only_if: Condition
) -> bool:
    connection.read_only = False  # also where the database was made read-only meanwhile
    with connection.transaction():
        if not only_if(_read(connection, [setting.key]).get(setting.key)):
            return False
        connection.execute(read_query("settings/durably"))
        connection.execute(alter_role(setting, written_value))
    return True


def _read(connection: Connection[Any], keys: list[str]) -> dict[str, Setting]:
    wanted = [_setting_of(key) for key in keys]
    columns = {
        "keys": keys,
        "names": [each.name for each in wanted],
        "roles": [each.role for each in wanted],
        "databases": [each.database for each in wanted],
    }
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(read_query("settings/of_roles"), columns).fetchall()
    found = {}
    for row in rows:
        text = row.pop("text")
        with suppress(ValueError):  # 0x7D0: the server reads more than we do, and of that nothing is known
            found[row["name"]] = Setting(value=parse(text or "", row["kind"], row["unit"]), **row)
    return found


def _role(connection: Connection[Any], name: str) -> RoleSeen | None:
    with connection.cursor(row_factory=class_row(RoleSeen)) as cursor:
        return cursor.execute(read_query("settings/role"), {"name": name}).fetchone()
