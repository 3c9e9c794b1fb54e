"""Everything that a command works with: settings, folders, server, repository; opened and closed together."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ml_postgres_optimization.errors import AlreadyRunning, EmbeddedServerFailed, GenesisError, UsageError
from ml_postgres_optimization.interfaces.home import Home
from ml_postgres_optimization.interfaces.logs import Log, open_log
from ml_postgres_optimization.interfaces.reporter import Reporter
from ml_postgres_optimization.interfaces.settings import Settings
from ml_postgres_optimization.knobs.catalogue import load_catalogue
from ml_postgres_optimization.safety.at_rest import undo_at_rest
from ml_postgres_optimization.safety.consent import Approvals, Consent, PauseFile
from ml_postgres_optimization.safety.journal import Journal, is_in_use, read_journal
from ml_postgres_optimization.safety.protection import LEASE_SECONDS, Duty, Lease
from ml_postgres_optimization.safety.undo import undo_unfinished
from ml_postgres_optimization.target.embedded import EmbeddedServer, find_binaries, system_identifier
from ml_postgres_optimization.target.postgres.connection import (
    ConnectionSettings,
    connect,
    resolve_connection,
    translated,
)
from ml_postgres_optimization.target.postgres.guard_session import GuardSession
from ml_postgres_optimization.target.postgres.lock import Holder, OptimizerLock, holder, optimizer_lock
from ml_postgres_optimization.target.postgres.repository import Repository
from ml_postgres_optimization.target.postgres.schema import (
    SchemaState,
    install_extension,
    install_schema,
    require_schema,
    schema_state,
)
from ml_postgres_optimization.target.postgres.server import MakeRestarter, PostgresTarget
from ml_postgres_optimization.target.protocols import Restarter
from ml_postgres_optimization.target.restart import CommandRestarter, EmbeddedRestarter
from ml_postgres_optimization.telemetry import Clock, SystemClock

_STATISTICS = "pg_stat_statements"
_EMBEDDED_EXTENSIONS = (_STATISTICS, "dblink")


@dataclass(slots=True)
class Session:
    """One command's work on one server.

    Parameters
    ----------
    settings : Settings
    home : Home
    reporter : Reporter
    clock : Clock
    log : structlog logger
    run : str
        A name for this run that sorts by time: it labels every window.
    connection : ConnectionSettings
        The tuned server.
    repository_connection : ConnectionSettings
        Where schema genesis stands.
    target : PostgresTarget
    embedded : bool
        Whether the server is our own, so that load of ours may run on it unasked.
    own_server : EmbeddedServer or None
        It, where this process owns it.
    """

    settings: Settings
    home: Home
    reporter: Reporter
    clock: Clock
    log: Log
    run: str
    connection: ConnectionSettings
    repository_connection: ConnectionSettings
    target: PostgresTarget
    embedded: bool
    own_server: EmbeddedServer | None = None
    _resources: ExitStack = field(default_factory=ExitStack)
    _lock: OptimizerLock | None = None
    _lease: Lease | None = None
    _journal: Journal | None = None
    _repository: Repository | None = None
    _is_guard_missed: bool = False

    @property
    def may_restart(self) -> bool:
        """Whether the server may be restarted for a change."""
        return self.target.can_restart and self.settings.allow_restart

    def optimizer_elsewhere(self) -> Holder | None:
        """Return who is at work on the server as its optimiser with another state folder than ours; None if nobody.

        Raises
        ------
        TargetError
            If the server cannot be asked.
        """
        if is_in_use(self.home.of_server(self.server)):
            return None
        with connect(self.connection, purpose="look") as connection, translated(self.connection, "look at the lock"):
            return holder(connection)

    @property
    def pause_file(self) -> PauseFile:
        """What halts all changes of the server as long as it is there."""
        return PauseFile(self.home.of_server(self.server))

    @property
    def approvals(self) -> Approvals:
        """The proposals for the server that wait for a word, and those that were answered."""
        return Approvals(self.home.of_server(self.server), self.clock)

    def consent(self) -> Consent:
        """Return what the owner allows, and when."""
        return Consent(
            self.clock,
            pause=self.pause_file,
            windows=self.settings.change_windows,
            approvals=self.approvals if self.settings.action == "approve" else None,
        )

    @property
    def may_load(self) -> bool:
        """Whether load of our own may run on the server."""
        return self.embedded or self.settings.simulate

    def repository(self) -> Repository:
        """Return the repository, on the session's one connection to it; on our own server it is made.

        Raises
        ------
        SchemaMissing
            If schema genesis is not there.
        """
        if self._repository is None or self._repository.is_lost:
            self._repository = self._open_repository()
        return self._repository

    def _open_repository(self) -> Repository:
        connection = connect(self.repository_connection, purpose="repository")
        try:
            if self.embedded and self.settings.repository is None:
                install_schema(connection)
            require_schema(connection)
        except BaseException:
            connection.close()
            raise
        self._resources.enter_context(connection)
        return Repository(connection, server=self.server)

    def schema_state(self) -> SchemaState:
        """Look which version of schema genesis is there."""
        with connect(self.repository_connection, purpose="repository") as connection:
            return schema_state(connection)

    @contextmanager
    def sole_optimizer(self) -> Iterator[Journal]:
        """Be the only optimiser of this server; first put back what an earlier one left unfinished.

        Raises
        ------
        AlreadyRunning
            If another one works on it.
        """
        lock = optimizer_lock(self.target.changing)
        with (
            lock as self._lock,
            Journal(self.home.of_server(self.server)) as self._journal,
            Lease(
                self.target.changing, self._duty(), self._guard_session, on_absence=self._on_no_guard
            ) as self._lease,
        ):
            journal = self._journal
            for undone in undo_unfinished(self.target, journal, capabilities=self.target.capabilities):
                self.reporter.say(str(undone))
                self.log.warning("undone", what=str(undone))
            yield journal

    def over_a_restart(self) -> AbstractContextManager[None]:
        """Return the context in which the server may be restarted; the lock is taken again at its end.

        Raises
        ------
        AlreadyRunning
            If another optimiser was faster.
        """
        return self._lock.over_a_restart() if self._lock is not None else nullcontext()

    @property
    def journal(self) -> Journal | None:
        """The journal that `sole_optimizer` has open, or had."""
        return self._journal

    @property
    def lease(self) -> Lease | None:
        """Who stands by for what `sole_optimizer` puts on trial."""
        return self._lease

    def _duty(self) -> Duty:
        return Duty(
            self.target.settings_of_connection.keywords,
            self.home.of_server(self.server),
            LEASE_SECONDS,
            self.target.changing.name,
            self.settings.restart_command if self.settings.allow_restart else None,
            self.settings.pg_bin,
            self.home.embedded if self.embedded else None,
        )

    def _guard_session(self) -> GuardSession:
        return GuardSession.open(self.target.settings_of_connection, self.target.capabilities)

    def _on_no_guard(self, reason: GenesisError) -> None:
        self.log.warning("no guard session", what=reason.what, next_step=reason.next_step)
        if not self._is_guard_missed:
            self._is_guard_missed = True
            self.reporter.say(f"The watchdog stands by alone. {reason.what} {reason.next_step}")

    def is_sole_optimizer(self) -> bool:
        """Tell whether this session still holds the lock that `sole_optimizer` took."""
        return self._lock is not None and self._lock.held()

    def write_result(self, name: str, write: Callable[[Path], object]) -> Path | None:
        """Write a file to the log folder; where it cannot be, say so and return None, for the work is done."""
        path = self.home.logs / name
        try:
            write(path)
        except OSError as error:
            self.reporter.say(f"{path} cannot be written: {error.strerror or error}. The work is done all the same.")
            self.log.warning("unwritten", path=str(path), what=str(error))
            return None
        return path

    def undo_unfinished(self) -> None:
        """Put back what a killed run of ours left on trial; nothing where another optimiser is at work right now."""
        if read_journal(self.home.of_server(self.server)).unfinished:
            with suppress(AlreadyRunning), self.sole_optimizer():
                self.log.info("nothing is unfinished any more")

    @property
    def server(self) -> str:
        """The server's identity over restarts."""
        return self.target.capabilities.system_identifier


@dataclass(frozen=True, slots=True)
class _Reached:
    """How the server is reached, and what makes that which restarts it; None where it is not to be restarted."""

    connection: ConnectionSettings
    restarter: MakeRestarter | None = None
    server: EmbeddedServer | None = None


@contextmanager
def open_session(
    settings: Settings, home: Home, environ: Mapping[str, str], reporter: Reporter, *, read_only: bool = False
) -> Iterator[Session]:
    """Connect to the chosen server, or start the embedded one, and undo what a run of ours left unfinished.

    Parameters
    ----------
    read_only : bool
        Whether nothing will be changed; an embedded server that another run owns is then joined, and what a killed
        run left on a server that runs is left.

    Raises
    ------
    GenesisError
        Of the kind that fits: unreachable, no privilege, no folder.
    """
    load_catalogue(allowed_by_owner=settings.allow_knob)  # refuses what no owner may allow, before anything is done
    home.prepare()
    with ExitStack() as resources:
        given = resolve_connection(settings.dsn, environ)
        reached = (
            _Reached(given, _by_command(settings, resources))
            if given
            else _embedded(settings, home, reporter, resources, join=read_only)
        )
        session = _opened(settings, home, reporter, resources, reached=reached, embedded=given is None)
        try:
            if not read_only:
                session.undo_unfinished()
            yield session
        except GenesisError as error:
            notes = getattr(error, "__notes__", [])
            session.log.error("stopped", kind=type(error).__name__, what=str(error), notes=notes)
            raise
        session.log.info("finished")


def _opened(
    settings: Settings,
    home: Home,
    reporter: Reporter,
    resources: ExitStack,
    *,
    reached: _Reached,
    embedded: bool,
) -> Session:
    """Open the target, and name the run."""
    run = f"{SystemClock().now():%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"
    log = resources.enter_context(open_log(home.logs, run=run))
    repository = ConnectionSettings.from_dsn(settings.repository, "--repository") if settings.repository else None
    memory_bytes = settings.memory_limit_bytes
    target = resources.enter_context(
        PostgresTarget.open(
            reached.connection,
            memory_override_bytes=memory_bytes,
            log_directory=home.logs,
            restarter=reached.restarter,
        )
    )
    home.prepare_for(target.capabilities.system_identifier)
    log.info("started", server=reached.connection.display, version=target.capabilities.version)
    return Session(
        settings=settings,
        home=home,
        reporter=reporter,
        clock=SystemClock(),
        log=log,
        run=run,
        connection=target.settings_of_connection,
        repository_connection=repository or target.settings_of_connection,
        target=target,
        embedded=embedded,
        own_server=reached.server,
        _resources=resources,
    )


def _embedded(settings: Settings, home: Home, reporter: Reporter, resources: ExitStack, *, join: bool) -> _Reached:
    """Start the embedded server, or join the one that another run of ours has started, where that is enough."""
    if join:
        with suppress(EmbeddedServerFailed):
            running = EmbeddedServer.attach(home.embedded)
            reporter.say("No server was given: looking at the embedded one that another run has started.")
            return _Reached(ConnectionSettings.from_dsn(running.dsn))
    binaries = find_binaries(settings.pg_bin)
    reporter.say(
        f"No server was given (--dsn, POSTGRES_* or PG*): working on an embedded PostgreSQL {binaries.major} "
        "of our own, with our own load."
    )
    extensions = [name for name in _EMBEDDED_EXTENSIONS if binaries.has_library(name)]
    preloaded = {"shared_preload_libraries": _STATISTICS} if _STATISTICS in extensions else {}
    server = resources.enter_context(
        EmbeddedServer.start(
            home.embedded,
            binaries=binaries,
            settings=preloaded,
            before_start=partial(_undo_at_rest, home, reporter),
        )
    )
    connection_settings = ConnectionSettings.from_dsn(server.dsn, origin="the embedded server")
    with connect(connection_settings, purpose="setup") as connection:
        for name in extensions:
            install_extension(connection, name)
    restarter = resources.enter_context(EmbeddedRestarter(server))
    return _Reached(connection_settings, lambda _connection, _data, _programs: restarter, server)


def _undo_at_rest(home: Home, reporter: Reporter, data_directory: Path) -> None:
    """Put back what a killed run left before the server is started: it might not start with it."""
    folder = home.of_server(system_identifier(data_directory))
    if read_journal(folder).unfinished:
        with Journal(folder) as journal:
            for undone in undo_at_rest(data_directory, journal):
                reporter.say(str(undone))


def _by_command(settings: Settings, resources: ExitStack) -> MakeRestarter | None:
    """Return what makes the restarter of a server of the user's; None where nobody has allowed a restart."""
    if not settings.allow_restart:
        return None
    command = settings.restart_command
    if command is None:
        raise UsageError(
            "--allow-restart is given, and not how this server is restarted.",
            "Say it: --restart-command 'systemctl restart postgresql', for one.",
        )

    def made(connection: ConnectionSettings, data_directory: Path | None, programs: Path | None) -> Restarter:
        def answer() -> None:
            connect(connection, purpose="restart").close()

        binaries = find_binaries(settings.pg_bin or programs)
        return resources.enter_context(
            CommandRestarter(command, answer, data_directory=data_directory, binaries=binaries)
        )

    return made
