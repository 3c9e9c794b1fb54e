"""SQL as package data: find the file that fits a server's version."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from psycopg import sql

from ml_postgres_optimization.knobs.configuration import RoleSetting

OLDEST_MAJOR = 14
"""The oldest major version of PostgreSQL that is supported."""

_SQL = files("ml_postgres_optimization.target.postgres") / "sql"
# Lists of names, GUC_LIST_QUOTE in src/backend/utils/misc/guc_tables.c.
_LISTS = frozenset(
    {
        "local_preload_libraries",
        "search_path",
        "session_preload_libraries",
        "shared_preload_libraries",
        "temp_tablespaces",
        "unix_socket_directories",
    }
)
_ELEMENT = re.compile(r'\s*("(?:[^"]|"")*"|[^,"]+)')
_VARIANT = re.compile(r"(.+)\.pg(\d+)\.sql")


@cache
def read_query(name: str, major: int = OLDEST_MAJOR) -> str:
    """Return the text of ``sql/<name>.pg<N>.sql`` with the highest N ≤ `major`, else of ``sql/<name>.sql``.

    Parameters
    ----------
    name : str
        Folder and name without a suffix: ``capabilities/identity``.
    major : int
        The server's major version; may be left out for a query that is the same for all.

    Raises
    ------
    FileNotFoundError
        If neither is there.
    """
    folder, _, stem = name.rpartition("/")
    fitting = [version for version in _versions(folder, stem) if version <= major]
    file_name = f"{stem}.pg{max(fitting)}.sql" if fitting else f"{stem}.sql"
    return _SQL.joinpath(*folder.split("/"), file_name).read_text(encoding="utf-8")


def alter_system(name: str, written_value: str | None) -> sql.Composed:
    """Compose the statement that sets a parameter for all sessions, or resets it where `written_value` is None.

    A parameter of an extension has a prefix, and each of its parts is quoted.
    """
    identifier = sql.SQL(".").join(sql.Identifier(part) for part in name.split("."))
    query = read_query("settings/reset" if written_value is None else "settings/write")
    return sql.SQL(query).format(name=identifier, value=sql.Literal(written_value or ""))


def alter_role(setting: RoleSetting, written_value: str | None) -> sql.Composed:
    """Compose the statement that gives a role's new sessions in a database a value, or takes it away from them."""
    query = read_query("settings/reset_for_role" if written_value is None else "settings/write_for_role")
    return sql.SQL(query).format(
        role=sql.Identifier(setting.role),
        database=sql.Identifier(setting.database),
        name=sql.Identifier(setting.name),
        value=sql.Literal(written_value or ""),
    )


def alter_setting(key: str, written_value: str | None) -> sql.Composed:
    """Compose the statement that sets what goes by `key`: a setting of the server, or one of a role."""
    setting = RoleSetting.of(key)
    return alter_system(key, written_value) if setting is None else alter_role(setting, written_value)


def alter_system_text(name: str, value: str | None) -> str:
    """Write `alter_setting` for people, with the semicolon; `value` as ``pg_settings`` has it, lists of names too.

    Of such a list each element is a literal of its own: as one, it would be one long name.

    Examples
    --------
    >>> print(alter_system_text("search_path", '"$user", public'))
    ALTER SYSTEM SET "search_path" = '$user', 'public';
    >>> print(alter_system_text('lock_timeout@"app"."shop"', None))
    ALTER ROLE "app" IN DATABASE "shop" RESET "lock_timeout";
    """
    if value is not None and name in _LISTS:
        return alter_list_text(name, list_elements(value))
    return f"{alter_setting(name, value).as_string().strip()};"


def alter_list_text(name: str, elements: Sequence[str]) -> str:
    """Write the statement that sets a list of names, each given without quotes.

    An empty list cannot be written: PostgreSQL makes one empty name of it, and does not start with such a library.

    Examples
    --------
    >>> print(alter_list_text("shared_preload_libraries", ["citus", "pg_stat_statements"]))
    ALTER SYSTEM SET "shared_preload_libraries" = 'citus', 'pg_stat_statements';
    >>> print(alter_list_text("shared_preload_libraries", []))
    ALTER SYSTEM RESET "shared_preload_libraries"; -- it was empty; now postgresql.conf decides
    """
    if not elements:
        return f"{alter_system_text(name, None)} -- it was empty; now postgresql.conf decides"
    literals = sql.SQL(", ").join(map(sql.Literal, elements))
    composed = sql.SQL(read_query("settings/write")).format(name=sql.Identifier(name), value=literals)
    return f"{composed.as_string().strip()};"


def list_elements(value: str) -> list[str]:
    """Return the names of a list as ``pg_settings`` has it, in order and without quotes."""
    return [name for name in map(_unquoted, _ELEMENT.findall(value)) if name]


def _unquoted(element: str) -> str:
    stripped = element.strip()
    return stripped[1:-1].replace('""', '"') if stripped.startswith('"') else stripped


def _versions(folder: str, stem: str) -> list[int]:
    names = (entry.name for entry in _SQL.joinpath(*folder.split("/")).iterdir())
    return [int(match[2]) for match in map(_VARIANT.fullmatch, names) if match and match[1] == stem]
