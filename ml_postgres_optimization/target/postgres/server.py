"""A live PostgreSQL behind one object: observed, tuned, and found again after a restart."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from psycopg import Connection

from ml_postgres_optimization.errors import ServerUnreachable
from ml_postgres_optimization.knobs.configuration import Configuration, is_of_role
from ml_postgres_optimization.knobs.knob import KnobValue, Setting
from ml_postgres_optimization.knobs.machine import Machine
from ml_postgres_optimization.target.capabilities import Capabilities
from ml_postgres_optimization.target.host import (
    HostProbe,
    ServerMemory,
    data_directory_if_local,
    postmaster_pid_if_local,
    program_folder,
    read_machine,
)
from ml_postgres_optimization.target.postgres.actuator import PostgresActuator
from ml_postgres_optimization.target.postgres.capabilities import read_capabilities, read_system_identifier
from ml_postgres_optimization.target.postgres.collector import (
    Inventory,
    StatisticsCollector,
    Stock,
    end_session_of,
    find_blocker,
)
from ml_postgres_optimization.target.postgres.connection import (
    ConnectionSettings,
    LastingConnection,
    connect,
    translated,
)
from ml_postgres_optimization.target.postgres.lock import Holder, holder
from ml_postgres_optimization.target.postgres.maintenance import Vacuum, find_bloated_table
from ml_postgres_optimization.target.postgres.queries import read_query
from ml_postgres_optimization.target.postgres.roles import RoleSettings
from ml_postgres_optimization.target.protocols import Condition, Restarter, always
from ml_postgres_optimization.target.seen import BloatedTable, Blocker, ConfigurationSeen, RoleSeen, SettingSeen
from ml_postgres_optimization.telemetry import ActivitySample, MemoryReading, Snapshot, StatementKey

_OBSERVING = "read the statistics views"
MakeRestarter = Callable[[ConnectionSettings, Path | None, Path | None], Restarter]


class PostgresTarget:
    """A live PostgreSQL; implements `target.protocols.Target`. Made by `open`.

    It holds two sessions: one to observe, one to change settings. Either is opened anew, once, when it was lost (the
    server restarted); a server with another system identifier at the same address is refused.

    Notes
    -----
    Not thread safe: one thread observes and tunes.
    """

    def __init__(
        self,
        settings: ConnectionSettings,
        capabilities: Capabilities,
        machine: Machine,
        *,
        log_directory: Path | None = None,
        restarter: Restarter | None = None,
    ) -> None:
        self._settings = settings
        self._capabilities = capabilities
        self._machine = machine
        self._log_directory = log_directory
        self._observing = LastingConnection(settings, "statistics", self._accept)
        # a name of its own: whoever stands by for this run ends whatever session of it changes settings
        purpose = f"settings {secrets.token_hex(8)}"
        self._changing = LastingConnection(settings, purpose, self._accept)
        self._collector: tuple[Connection[Any], StatisticsCollector] | None = None
        self._inventory: tuple[Connection[Any], Inventory] | None = None
        self._actuator = PostgresActuator(settings, capabilities, self._changing, restarter=restarter)
        self._roles = RoleSettings(self._changing)
        self._vacuum = Vacuum(settings)

    @classmethod
    def open(
        cls,
        settings: ConnectionSettings,
        *,
        memory_override_bytes: int | None = None,
        log_directory: Path | None = None,
        restarter: MakeRestarter | None = None,
    ) -> Self:
        """Connect, and find out what the server is and what it runs on.

        Parameters
        ----------
        settings : ConnectionSettings
            Of several hosts, the one reached now is kept to.
        memory_override_bytes : int, optional
            What the user says that the server may use; needed where it runs on another machine.
        log_directory : Path, optional
            Of our own logs, whose disk is watched too.
        restarter : callable, optional
            Returns what restarts the server; takes how it is reached, its data directory and the folder of its
            programs, None where they cannot be seen from here. Without it the server is never restarted.

        Raises
        ------
        TargetError
            Whatever kept us out: see `connect`.
        """
        with connect(settings, purpose="capabilities") as connection, translated(settings, _OBSERVING):
            pinned = settings.pinned(connection)
            capabilities = read_capabilities(connection)
            machine = _machine(connection, memory_override_bytes)
            made = restarter and restarter(pinned, data_directory_if_local(connection), _programs(connection))
        target = cls(pinned, capabilities, machine, log_directory=log_directory, restarter=made)
        target._changing.run(lambda _: None, "open a session")
        return target

    @property
    def settings_of_connection(self) -> ConnectionSettings:
        """How this very server is reached."""
        return self._settings

    @property
    def capabilities(self) -> Capabilities:
        """What it is and lets us do, as it was when we opened it."""
        return self._capabilities

    @property
    def machine(self) -> Machine:
        """What it runs on, as it was when we opened it."""
        return self._machine

    def snapshot(self) -> Snapshot:
        """Read every counter and gauge.

        Raises
        ------
        ServerUnreachable
            If the server is gone.
        """
        return self._observing.run(lambda connection: self._collector_on(connection).snapshot(), _OBSERVING)

    def activity(self) -> ActivitySample:
        """Read who is doing what.

        Raises
        ------
        ServerUnreachable
            If the server is gone.
        """
        return self._observing.run(lambda connection: self._collector_on(connection).activity(), _OBSERVING)

    def memory(self) -> MemoryReading | None:
        """Read how much memory the server's machine has left; None where that is not seen from here.

        Raises
        ------
        ServerUnreachable
            If the server is gone.
        """
        return self._observing.run(lambda connection: self._collector_on(connection).memory(), _OBSERVING)

    def stock(self) -> Stock:
        """Read what is dear to read and grows slowly: once a minute, not once a second.

        Raises
        ------
        ServerUnreachable
            If the server is gone.
        """
        return self._observing.run(lambda connection: self._inventory_on(connection).take(), _OBSERVING)

    def blocker(self) -> Blocker | None:
        """Return the session that is idle in a transaction while most others wait for it; None without any.

        Raises
        ------
        ServerUnreachable
            If the server is gone.
        """
        return self._observing.run(find_blocker, "look for who keeps others waiting")

    def end_blocker(self, blocker: Blocker) -> bool:
        """End that session if it is still as it was seen, and return whether it was; for `safety.guard` to ask.

        Raises
        ------
        PrivilegeMissing
            If our role may not end sessions of that one.
        ServerUnreachable
            If the session that holds the optimiser's lock was lost.
        """
        return self._changing.run_bound(lambda connection: end_session_of(connection, blocker), "end a session")

    def bloated_table(self) -> BloatedTable | None:
        """Return the table of this database with the most dead rows; None where there are no tables.

        Raises
        ------
        ServerUnreachable
            If the server is gone.
        """
        return self._observing.run(find_bloated_table, "look for the table with the most dead rows")

    def begin_vacuum(self, table: BloatedTable) -> bool:
        """Begin to vacuum it, in a session of its own; return whether none was under way.

        Raises
        ------
        ServerUnreachable, TargetError
        """
        return self._vacuum.begin(table)

    def end_vacuum(self) -> None:
        """Break off what was begun, where it is not done."""
        self._vacuum.end()

    def statement_texts(self, keys: Iterable[StatementKey]) -> Mapping[StatementKey, str]:
        """Return the normalised text of queries; those that are gone or may not be read are absent.

        Raises
        ------
        ServerUnreachable
            If the server is gone.
        """
        return self._observing.run(
            lambda connection: self._collector_on(connection).statement_texts(keys), "read the texts of statements"
        )

    def looked(self) -> ConfigurationSeen:
        """Return when the configuration files were taken over last; as long as that stays, so does the configuration.

        Raises
        ------
        ServerUnreachable
            If the server is gone.
        """
        return self._observing.run(_looked, "look at the configuration")

    def configuration_seen(self) -> ConfigurationSeen:
        """Return what holds for all sessions of the server, but for what may hold secrets.

        Raises
        ------
        ServerUnreachable
            If the server is gone.
        """
        return self._observing.run(_configuration_seen, "look at the configuration")

    def other_optimizer(self) -> Holder | None:
        """Return the session that holds the lock of the one optimiser, if any does.

        Raises
        ------
        ServerUnreachable
            If the server is gone.
        """
        return self._observing.run(holder, "look for the optimiser's lock")

    def settings(self, names: Iterable[str]) -> Mapping[str, Setting]:
        """Return the live settings; see `PostgresActuator.settings`, and `RoleSettings.settings`."""
        wanted = set(names)
        of_roles = {name for name in wanted if is_of_role(name)}
        plain = self._actuator.settings(wanted - of_roles) if wanted - of_roles else {}
        return {**plain, **self._roles.settings(of_roles)}

    def role(self, name: str) -> RoleSeen | None:
        """Return what a role is; see `RoleSettings.role`."""
        return self._roles.role(name)

    def configuration(self, names: Iterable[str]) -> Configuration:
        """Return the values in force of those parameters of `names` that this server has."""
        return Configuration({name: setting.value for name, setting in self.settings(names).items()})

    def write(self, name: str, value: KnobValue, *, only_if: Condition = always) -> bool:
        """Write a value, in force after `reload`; see `PostgresActuator.write`, and `RoleSettings.write`."""
        return (self._roles if is_of_role(name) else self._actuator).write(name, value, only_if=only_if)

    def restore(self, name: str, written_value: str | None, *, only_if: Condition = always) -> bool:
        """Put back what was written before; see `PostgresActuator.restore`, and `RoleSettings.restore`."""
        return (self._roles if is_of_role(name) else self._actuator).restore(name, written_value, only_if=only_if)

    def reload(self) -> None:
        """Make written values take effect; see `PostgresActuator.reload`."""
        self._actuator.reload()

    @property
    def can_restart(self) -> bool:
        """Whether the server can be restarted from here."""
        return self._actuator.can_restart

    def rehearse(self, values: Mapping[str, KnobValue]) -> None:
        """See that the server would start with `values`; see `PostgresActuator.rehearse`."""
        self._actuator.rehearse(values)

    def restart(self, rescue: Mapping[str, str | None]) -> None:
        """Restart the server; see `PostgresActuator.restart`."""
        self._observing.close()
        self._actuator.restart(rescue)

    @property
    def changing(self) -> LastingConnection:
        """The session in which settings are changed: the optimiser's lock belongs in it."""
        return self._changing

    def close(self) -> None:
        """End both sessions; the target can be used again, and then opens new ones."""
        self._collector = self._inventory = None
        self._vacuum.end()
        self._observing.close()
        self._changing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self, connection: Connection[Any]) -> None:
        """Refuse a connection that leads to another server than the one that was opened."""
        found, expected = read_system_identifier(connection), self._capabilities.system_identifier
        if found != expected:
            raise ServerUnreachable(
                f"Another server answers at {self._settings.display} now: its system identifier is {found}, "
                f"not {expected}.",
                "Start again if this is meant to be the server to tune.",
            )

    def _collector_on(self, connection: Connection[Any]) -> StatisticsCollector:
        if self._collector is None or self._collector[0] is not connection:
            host = _host_probe(connection, self._log_directory)
            self._collector = (connection, StatisticsCollector(connection, self._capabilities, host))
        return self._collector[1]

    def _inventory_on(self, connection: Connection[Any]) -> Inventory:
        if self._inventory is None or self._inventory[0] is not connection:
            pid = postmaster_pid_if_local(connection)
            memory, folder = (None if pid is None else ServerMemory(pid)), data_directory_if_local(connection)
            self._inventory = (connection, Inventory(connection, self._capabilities, memory, folder))
        return self._inventory[1]


def _looked(connection: Connection[Any]) -> ConfigurationSeen:
    ((at, loaded_at, is_standby),) = connection.execute(read_query("settings/looked")).fetchall()
    return ConfigurationSeen(at, loaded_at, is_standby=is_standby)


def _configuration_seen(connection: Connection[Any]) -> ConfigurationSeen:
    # first the time: what is loaded in between is looked at again
    looked = _looked(connection)
    settings = connection.execute(read_query("settings/in_force")).fetchall()
    return replace(looked, settings=tuple(SettingSeen(*row) for row in settings))


def _programs(connection: Connection[Any]) -> Path | None:
    server_pid = postmaster_pid_if_local(connection)
    return None if server_pid is None else program_folder(server_pid)


def _machine(connection: Connection[Any], memory_override_bytes: int | None) -> Machine:
    server_pid = postmaster_pid_if_local(connection)
    (shared_buffers_bytes,) = connection.execute(read_query("settings/shared_buffers")).fetchone() or (0,)
    return read_machine(
        is_local=server_pid is not None,
        memory_override_bytes=memory_override_bytes,
        shared_buffers_bytes=shared_buffers_bytes,
        data_directory=data_directory_if_local(connection),
        server_pid=server_pid,
    )


def _host_probe(connection: Connection[Any], log_directory: Path | None) -> HostProbe | None:
    """Return a probe of the server's machine if that is this one."""
    server_pid = postmaster_pid_if_local(connection)
    if server_pid is None:
        return None
    return HostProbe(
        data_directory=data_directory_if_local(connection), log_directory=log_directory, server_pid=server_pid
    )
