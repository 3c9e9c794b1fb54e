"""Settings as SQL, and as lines of a configuration file."""

from __future__ import annotations

from collections.abc import Sequence

from ml_postgres_optimization.knobs.dialects.item import Item, names_of


def alter_system(items: Sequence[Item]) -> tuple[str, ...]:
    """Return the statements that set them for the whole server; what needs a restart comes last, and is said.

    Examples
    --------
    >>> alter_system([Item("work_mem", 65536, "kB")])
    ("ALTER SYSTEM SET work_mem = '64MB';", 'SELECT pg_reload_conf();')
    """
    online = [item for item in items if not item.needs_restart]
    at_start = [item for item in items if item.needs_restart]
    statements = tuple(f"ALTER SYSTEM SET {item.name} = {_quoted(item.text)};" for item in (*online, *at_start))
    return (*statements, "SELECT pg_reload_conf();", *_restart_note("--", at_start))


def alter_database(items: Sequence[Item], database: str) -> tuple[str, ...]:
    """Return the statements that set for new sessions of one database what a session can set for itself.

    Parameters
    ----------
    items : sequence of Item
        Those that no session can set for itself are left out.
    database : str
        Its name, whatever is in it.

    Examples
    --------
    >>> items = [Item("work_mem", 65536, "kB", is_sessions_own=True), Item("max_wal_size", 4096, "MB")]
    >>> alter_database(items, 'a "b')
    ('ALTER DATABASE "a ""b" SET work_mem = \\'64MB\\';',)
    """
    name = '"' + database.replace('"', '""') + '"'
    return tuple(
        f"ALTER DATABASE {name} SET {item.name} = {_quoted(item.text)};" for item in items if item.is_sessions_own
    )


def configuration_file(items: Sequence[Item]) -> tuple[str, ...]:
    """Return lines for ``postgresql.conf``, or for a file that it includes.

    Examples
    --------
    >>> configuration_file([Item("jit", False)])
    ('# In postgresql.conf or a file that it includes; then reload: pg_ctl reload', "jit = 'off'")
    """
    heading = "# In postgresql.conf or a file that it includes; then reload: pg_ctl reload"
    lines = (f"{item.name} = {_quoted(item.text)}" for item in items)
    return (heading, *lines, *_restart_note("#", [item for item in items if item.needs_restart]))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _restart_note(mark: str, items: Sequence[Item]) -> tuple[str, ...]:
    return (f"{mark} With the next restart only: {names_of(items)}",) if items else ()
