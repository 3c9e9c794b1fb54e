"""Read and write the settings that hold for all sessions, by ``ALTER SYSTEM`` and a reload."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import Connection, sql
from psycopg.rows import DictRow, dict_row, scalar_row

from ml_postgres_optimization.errors import ChangeRefused, PrivilegeMissing, ServerUnreachable, TargetError
from ml_postgres_optimization.knobs.knob import KnobValue, Setting
from ml_postgres_optimization.knobs.rendering import written_text
from ml_postgres_optimization.target.capabilities import Capabilities
from ml_postgres_optimization.target.postgres.connection import (
    ConnectionSettings,
    LastingConnection,
    connect,
    translated,
)
from ml_postgres_optimization.target.postgres.queries import alter_system, read_query
from ml_postgres_optimization.target.protocols import Condition, Restarter, always
from ml_postgres_optimization.telemetry import Clock, SystemClock

RELOAD_TIMEOUT_SECONDS = 5.0
"""How long a reload may take to arrive; 2.6 ms were measured on an idle server."""

VALUES_TIMEOUT_SECONDS = 0.5
"""How long a fresh session may lack values after the reload has arrived: it may have been another's reload."""

_FIRST_POLL_SECONDS = 0.01
_FILE = "configuration file"
_REFUSALS = frozenset({"22023", "42704", "42602", "55P02", "0A000"})
"""Invalid value, unknown parameter, invalid name, parameter that cannot change, feature not supported."""


class PostgresActuator:
    """The settings of a PostgreSQL server; implements `target.protocols.Actuator`.

    Parameters
    ----------
    settings : ConnectionSettings
    capabilities : Capabilities
        Of the same server and role.
    session : LastingConnection
        For all that changes something: it is already there when all connections of the server are taken.
    clock : Clock, optional
    restarter : Restarter, optional
        Without one, the server is never restarted.

    Notes
    -----
    On two busy cores a reading takes 6 ms (its fresh connection), a change 11 ms (its fsync), a reload 11 ms. Not
    thread safe.

    **How `restore` is right for a role that cannot see the files** (no ``pg_file_settings``, no ``sourcefile``):
    a parameter whose `source` is ``default`` stands in no file, so RESET brings it back. One whose source is
    ``configuration file`` may stand in ``postgresql.conf`` or ``postgresql.auto.conf``; its value in force is then
    taken for the written one, since to write that back brings back what was in force, whichever file it came from.
    (What remains, where it was ``postgresql.conf``, is a line in ``postgresql.auto.conf`` that says the same.) One
    that something else overrides (the role, the database, the command line), or that waits for a restart, hides what
    the file says: `write` refuses it, as nobody could put it back.
    """

    def __init__(
        self,
        settings: ConnectionSettings,
        capabilities: Capabilities,
        session: LastingConnection,
        *,
        clock: Clock | None = None,
        restarter: Restarter | None = None,
    ) -> None:
        self._settings = settings
        self._capabilities = capabilities
        self._session = session
        self._clock = clock or SystemClock()
        self._restarter = restarter
        self._awaited: dict[str, KnobValue] = {}
        self._touched: set[str] = set()

    def settings(self, names: Iterable[str]) -> Mapping[str, Setting]:
        """Return the live settings, in base units, as a fresh session has them.

        Where no connection is free, the answer comes from a session that has been there for longer: the same,
        except that it does not see what ``ALTER ROLE`` or ``ALTER DATABASE`` set since.

        Raises
        ------
        ServerUnreachable
            If the server is gone.
        """
        wanted = list(names)
        try:
            with connect(self._settings, purpose="settings") as fresh, translated(self._settings, "read settings"):
                return self._read(fresh, wanted)
        except ServerUnreachable:
            return self._session.run(lambda connection: self._read(connection, wanted), "read settings")

    def write(self, name: str, value: KnobValue, *, only_if: Condition = always) -> bool:
        """Write `value` (base units) for `name` into ``postgresql.auto.conf``; in force after `reload`.

        Where the optimiser's lock is held, it is compared and written in the session that holds it, and in no other.

        Raises
        ------
        ChangeRefused
            If the server refuses the value, somebody else manages the server, the parameter holds text (a list of
            libraries, a command), or what the file says now cannot be seen, so that it could not be put back.
        PrivilegeMissing
            If the role may not set it.
        """
        setting = self._session.run_bound(lambda connection: self._read(connection, [name]), f"set {name}").get(name)
        refusal = self._refusal(name, setting)
        if refusal is not None or setting is None:
            raise refusal or _unknown(name)
        if not only_if(setting):
            return False
        statement = alter_system(name, written_text(value))
        with self._altering(name, f"{name} = {written_text(value)} was refused", setting):
            self._session.run_bound(lambda connection: connection.execute(statement), f"set {name} by ALTER SYSTEM")
        self._touched.add(name)
        self._awaited[name] = value
        return True

    def restore(self, name: str, written_value: str | None, *, only_if: Condition = always) -> bool:
        """Put back what the file said; compared and set in one session: where it is lost, the next compares again.

        Raises
        ------
        ChangeRefused
            If the server refuses it, or the parameter holds text.
        PrivilegeMissing
            If the role may not set it.
        """
        statement = alter_system(name, written_value)

        def compare_and_set(connection: Connection[Any]) -> bool:
            setting = self._read(connection, [name]).get(name)
            if setting is not None and setting.kind == "string":
                raise _holds_text(name)
            if not only_if(setting):
                return False
            connection.execute(statement)
            return True

        with self._altering(name, f"{name} could not be put back to {written_value or 'its default'}"):
            is_done = self._session.run(compare_and_set, f"set {name} by ALTER SYSTEM")
        if is_done:
            self._touched.add(name)
        self._awaited.pop(name, None)
        return is_done

    def reload(self) -> None:
        """Make written values take effect, and wait until a fresh session sees that they did.

        Raises
        ------
        ChangeRefused
            If a file has an error that keeps our values out, or a fresh session does not see them: something above
            the file wins, or the server adjusts the value.
        PrivilegeMissing
            If the role may not reload.
        TargetError
            If the server does not reload within 5 s.
        """
        try:
            self._check_files()
            before = self._loaded_at()
            query, doing = read_query("settings/reload"), "reload the configuration (pg_reload_conf)"
            if not self._session.run(lambda connection: _scalar(connection, query), doing):
                raise _no_signal()
            self._await(before)
        finally:
            self._awaited.clear()
            self._touched.clear()

    @property
    def can_restart(self) -> bool:
        """Whether the server can be restarted from here."""
        return self._restarter is not None

    def rehearse(self, values: Mapping[str, KnobValue]) -> None:
        """See, without touching the server, that it would start with `values`; see `protocols.Actuator`.

        Raises
        ------
        ChangeRefused, TargetError
        """
        self._required_restarter().rehearse({name: written_text(value) for name, value in values.items()})

    def restart(self, rescue: Mapping[str, str | None]) -> None:
        """Restart the server, so that all that was written takes effect; see `protocols.Actuator`.

        Raises
        ------
        ChangeRefused
            If a file has an error, or the server had to be brought back as it was.
        TargetError
            If it does not start.
        """
        try:
            self._check_files()
            self._session.close()
            self._required_restarter().restart(rescue)
        finally:
            self._awaited.clear()
            self._touched.clear()

    def _required_restarter(self) -> Restarter:
        if self._restarter is None:
            raise ChangeRefused(
                "The server was not restarted: nobody has allowed it, or said how.", "Allow it: --allow-restart."
            )
        return self._restarter

    def _read(self, connection: Connection[Any], names: list[str]) -> dict[str, Setting]:
        written: dict[str, str] | None = None
        if self._capabilities.settings_visible:
            written = dict(connection.execute(read_query("settings/written")).fetchall())
        with connection.cursor(row_factory=dict_row) as cursor:
            rows = cursor.execute(read_query("settings/settings"), {"names": names}).fetchall()
        return {row["name"]: _setting(row, written) for row in rows}

    def _refusal(self, name: str, setting: Setting | None) -> ChangeRefused | None:
        if self._capabilities.managed_by:
            return ChangeRefused(
                f"{name} was not changed: {self._capabilities.managed_by} manages this server's configuration.",
                f"Set it there: {self._capabilities.managed_by} would undo or override ALTER SYSTEM.",
            )
        if setting is None:
            return _unknown(name)
        if setting.kind == "string":
            return _holds_text(name)
        hidden = setting.pending_restart or setting.source not in ("default", _FILE)
        if hidden and not self._capabilities.settings_visible:
            return ChangeRefused(
                f"{name} was not changed: its value in force comes from elsewhere ({setting.source}) and hides what "
                "the configuration file says, so it could not be put back.",
                f"GRANT SELECT ON pg_file_settings and EXECUTE ON pg_show_all_file_settings() TO {self._role}.",
            )
        return None

    @contextmanager
    def _altering(self, name: str, what: str, setting: Setting | None = None) -> Iterator[None]:
        try:
            yield
        except PrivilegeMissing as error:
            raise PrivilegeMissing(error.what, self._grant(name)) from error
        except psycopg.Error as error:
            if error.sqlstate not in _REFUSALS:
                raise
            raise ChangeRefused(f"{what}: {error.diag.message_primary}", _what_is_allowed(name, setting)) from error

    def _grant(self, name: str) -> str:
        if self._capabilities.major < 15:
            return "Before PostgreSQL 15 only a superuser can: connect as one, or change it by hand."
        return f"As a superuser: GRANT ALTER SYSTEM ON PARAMETER {name} TO {self._role};"

    @property
    def _role(self) -> str:
        return sql.Identifier(self._capabilities.role).as_string()

    def _check_files(self) -> None:
        """Find what would keep our values out before anything is applied: a reload applies what it can, not all."""
        if not self._capabilities.settings_visible:
            return
        names = {"names": sorted(self._touched)}
        row = self._session.run(
            lambda connection: connection.execute(read_query("settings/file_errors"), names).fetchone(),
            "read pg_file_settings",
        )
        if row:
            file, line, name, error = row
            raise ChangeRefused(
                f"The configuration was not reloaded: {file}, line {line}{f' ({name})' if name else ''}: {error}",
                "Mend that line; until then the server keeps what it has in force.",
            )

    def _await(self, before: float) -> None:
        """Wait until the reload has arrived, and a fresh session shows every value that was written."""
        if not self._comes_true(lambda: self._loaded_at() != before, RELOAD_TIMEOUT_SECONDS):
            raise _no_reload()
        if not self._comes_true(lambda: not self._differing(), VALUES_TIMEOUT_SECONDS):
            for name, setting in self._differing().items():
                raise _not_in_force(name, self._awaited[name], setting)

    def _comes_true(self, condition: Callable[[], bool], timeout_seconds: float) -> bool:
        deadline = self._clock.monotonic_seconds() + timeout_seconds
        poll_seconds = _FIRST_POLL_SECONDS
        while not condition():
            if self._clock.monotonic_seconds() >= deadline:
                return False
            self._clock.sleep(poll_seconds)
            poll_seconds *= 2
        return True

    def _loaded_at(self) -> float:
        query = read_query("settings/loaded")
        return float(self._session.run(lambda connection: _scalar(connection, query), "read pg_conf_load_time()"))

    def _differing(self) -> dict[str, Setting]:
        """Return what a fresh session shows other than written; a restart-only parameter is not expected yet."""
        if not self._awaited:
            return {}
        return {
            name: setting
            for name, setting in self.settings(self._awaited).items()
            if setting.context != "postmaster" and not same_value(setting.value, self._awaited[name])
        }


def same_value(one: KnobValue, other: KnobValue) -> bool:
    """Tell whether two values are the same for the server, which shows reals with six digits.

    Examples
    --------
    >>> same_value(0.123457, 0.1234567), same_value(True, 1), same_value("LZ4", "lz4")
    (True, False, True)
    """
    if isinstance(one, str) and isinstance(other, str):
        return one.lower() == other.lower()
    if isinstance(one, int | float) and isinstance(other, int | float):
        return isinstance(one, bool) == isinstance(other, bool) and math.isclose(one, other, rel_tol=1e-5)
    return False


def _setting(row: DictRow, written: Mapping[str, str] | None) -> Setting:
    name, text = row["name"], row.pop("text") or ""
    file = row.pop("sourcefile")
    if written is not None:
        written_value = written.get(name.lower())
    else:
        may_be_ours = file is None or file.endswith("postgresql.auto.conf")
        written_value = text if row["source"] == _FILE and may_be_ours else None
    enumvals = tuple(row.pop("enumvals") or ())
    return Setting(value=_value(text, row["kind"]), enumvals=enumvals, written_value=written_value, **row)


def _value(text: str, kind: str) -> KnobValue:
    if kind == "bool":
        return text == "on"
    if kind == "integer":
        return int(text)
    return float(text) if kind == "real" else text


def _scalar(connection: Connection[Any], query: str) -> Any:
    with connection.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(query).fetchone()


def _what_is_allowed(name: str, setting: Setting | None) -> str:
    if setting is None or setting.context == "internal":
        return f"{name} cannot be set on this server."
    if setting.enumvals:
        return f"{name} takes one of: {', '.join(setting.enumvals)}."
    if setting.minimum is None or setting.maximum is None:
        return f"{name} takes a value of type {setting.kind}."
    unit = f" (in units of {setting.unit})" if setting.unit else ""
    return f"{name} takes a value from {setting.minimum:.15g} to {setting.maximum:.15g}{unit}."


def _unknown(name: str) -> ChangeRefused:
    return ChangeRefused(
        f"{name} was not changed: this server has no such parameter.",
        "Check its name and the server's version; that of an extension needs the extension to be preloaded.",
    )


def _holds_text(name: str) -> ChangeRefused:
    return ChangeRefused(
        f"{name} was not changed: it holds text (a list, a path or a command), which is never tuned.",
        "Change it by hand, if it is to be changed.",
    )


def _not_in_force(name: str, value: KnobValue, setting: Setting) -> ChangeRefused:
    return ChangeRefused(
        f"{name} = {written_text(value)} was written, but a fresh session has "
        f"{written_text(setting.value)} (source: {setting.source}).",
        "Something wins over the file (role, database or command line), or the server adjusts the value.",
    )


def _no_signal() -> TargetError:
    return TargetError(
        "The server could not be told to reload its configuration: pg_reload_conf() returned false.",
        "Look into the server's log; the change is written, and takes effect at its next reload.",
    )


def _no_reload() -> TargetError:
    return TargetError(
        f"The server did not reload its configuration within {RELOAD_TIMEOUT_SECONDS:g} s.",
        "Look into the server's log; the change is written, and takes effect at its next reload.",
    )
