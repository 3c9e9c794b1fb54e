"""A PostgreSQL of our own: made, started, owned and stopped by us."""

from __future__ import annotations

import atexit
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
import psycopg
from psycopg.conninfo import make_conninfo

from ml_postgres_optimization.errors import EmbeddedServerFailed
from ml_postgres_optimization.target.embedded.account import Account, server_account
from ml_postgres_optimization.target.embedded.binaries import Binaries
from ml_postgres_optimization.target.embedded.cluster import (
    SUPERUSER,
    binaries_for,
    copy_cluster,
    initialise,
    write_settings,
)
from ml_postgres_optimization.target.embedded.folder import SYSTEM_STATE, Folder, locate, make, usable
from ml_postgres_optimization.target.embedded.installation import runnable_by
from ml_postgres_optimization.target.embedded.postmaster import (
    StopMode,
    clean_up_after_crash,
    make_socket_directory,
    read_pid_file,
    remove_socket_directory,
    running_postmaster,
    start_postmaster,
    stop_postmaster,
)

DEFAULT_PORT = 5432
START_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class AttachedServer:
    """A running server that another process owns.

    Parameters
    ----------
    dsn : str
        How a superuser connects to it.
    data_directory, log_path : Path
        Where its data and its log are.
    """

    dsn: str
    data_directory: Path
    log_path: Path


class EmbeddedServer:
    """A PostgreSQL of our own, reached through a Unix socket that no other user can open.

    Made by `start`; one owner at a time, ensured by a lock that dies with its holder. Durability stays as initdb sets
    it. The server is stopped by `stop`, by leaving the context, and on a normal exit of the interpreter; after a
    SIGKILL of the owner the next `start` stops what was left.

    Notes
    -----
    Not safe for use from several threads at once. A first start takes about 1 s, mostly initdb; a later one 0.2 s.
    """

    def __init__(self, folder: Folder, binaries: Binaries, account: Account, lock: int) -> None:
        self._folder = folder
        self._binaries = binaries
        self._account = account
        self._lock = lock
        self._settings: dict[str, str] = {}
        self._process: psutil.Popen | None = None
        self._socket_directory: Path | None = None
        self._tcp_port: int | None = None

    @classmethod
    def start(
        cls,
        home: Path,
        *,
        binaries: Binaries,
        settings: Mapping[str, str] | None = None,
        tcp_port: int | None = None,
        password: str | None = None,
        timeout_seconds: float = START_TIMEOUT_SECONDS,
        system_state: Path = SYSTEM_STATE,
        before_start: Callable[[Path], None] | None = None,
    ) -> Self:
        """Start the server that belongs to `home`, made at the first time.

        Parameters
        ----------
        home : Path
            The folder of its data; as root, data may live in `system_state` instead (see `folder.locate`).
        binaries : Binaries
            Which PostgreSQL; data that are already there keep their major version.
        settings : mapping of str to str, optional
            Written to a configuration file, below ``ALTER SYSTEM``.
        tcp_port : int, optional
            Listen on 127.0.0.1 too; 0 finds a free port.
        password : str, optional
            The superuser's, asked for over TCP. It reaches the server as a SCRAM verifier only.
        timeout_seconds : float
            How long to wait until it accepts connections; a recovery after a crash can take a while.
        system_state : Path
            Where root keeps what the server's account cannot reach in `home`.
        before_start : callable, optional
            Receives the data directory of a server that was there before, while nothing runs on it.

        Raises
        ------
        AlreadyRunning
            If another process owns it.
        EmbeddedServerFailed
            If the data are not ours or of a version that is not installed, or PostgreSQL does not start.
        StateError
            If the folder cannot be read or written.
        """
        account = server_account()
        with usable(home):
            folder = make(home, account, system_state)
            server = cls(folder, binaries, account, folder.lock())
            try:
                server._prepare(system_state, before_start)
                server._open(settings or {}, tcp_port, timeout_seconds)
                server._set_password(password)
            except BaseException:
                server.stop("immediate")
                raise
        atexit.register(server.stop)
        return server

    @staticmethod
    def attach(home: Path, *, system_state: Path = SYSTEM_STATE) -> AttachedServer:
        """Return the running server of `home`, which another process owns.

        Raises
        ------
        EmbeddedServerFailed
            If none runs there.
        StateError
            If the folder cannot be read.
        """
        with usable(home):
            folder = locate(home, server_account(), system_state)
            pid_file = read_pid_file(folder.data_directory) if folder.has_data() else None
            if pid_file is None or running_postmaster(folder.data_directory) is None:
                raise EmbeddedServerFailed(
                    f"No embedded server is running in {folder.path}.", "Start one: python run.py --mode all"
                )
        dsn = _superuser_dsn(pid_file.socket_directory, pid_file.port)
        return AttachedServer(dsn, folder.data_directory, folder.log_file)

    @staticmethod
    @contextmanager
    def at_rest(home: Path, *, system_state: Path = SYSTEM_STATE) -> Iterator[Path]:
        """Give the data directory of a server of `home` that is down, and keep it down meanwhile.

        Raises
        ------
        AlreadyRunning
            If another process owns it.
        EmbeddedServerFailed
            If it runs, or is not there.
        StateError
            If its folder cannot be read.
        """
        account = server_account()
        with usable(home):
            folder = locate(home, account, system_state)
            if not folder.has_data():
                raise EmbeddedServerFailed(f"No embedded server is in {folder.path}.", "Start one.")
            lock = folder.lock()
            try:
                if running_postmaster(folder.data_directory) is not None:
                    raise EmbeddedServerFailed(f"The embedded server in {folder.path} runs.", "Connect to it.")
                _end_what_was_left(folder, account)
                yield folder.data_directory
            finally:
                os.close(lock)

    @staticmethod
    def remove(home: Path, *, system_state: Path = SYSTEM_STATE) -> None:
        """Delete the server of `home` with all its data; does nothing if there is none.

        Raises
        ------
        AlreadyRunning
            If another process owns it.
        EmbeddedServerFailed
            If the data are not ours.
        StateError
            If it cannot be deleted.
        """
        account = server_account()
        with usable(home):
            folder = locate(home, account, system_state)
            if not folder.lock_file.exists():
                return
            lock = folder.lock()
            try:
                if folder.has_data():
                    _end_what_was_left(folder, account)
                folder.remove()
            finally:
                os.close(lock)

    @property
    def dsn(self) -> str:
        """How a superuser connects: a keyword string of libpq. It stays the same over a `restart`."""
        return _superuser_dsn(self._owned_socket_directory, self._port)

    @property
    def tcp_port(self) -> int | None:
        """The port on 127.0.0.1, if it listens there."""
        return self._tcp_port

    @property
    def data_directory(self) -> Path:
        """PostgreSQL's data directory."""
        return self._folder.data_directory

    @property
    def binaries(self) -> Binaries:
        """The installation that runs it."""
        return self._binaries

    @property
    def bin_directory(self) -> Path:
        """The programs that run it."""
        return self._binaries.bin_directory

    @property
    def version_num(self) -> int:
        """Its version, as ``server_version_num`` gives it."""
        return self._binaries.version_num

    @property
    def log_path(self) -> Path:
        """Its log since the last start."""
        return self._folder.log_file

    @property
    def is_running(self) -> bool:
        """Whether its postmaster lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def process_id(self) -> int | None:
        """Its postmaster's; None while it is down."""
        return self._process.pid if self._process is not None and self.is_running else None

    def start_standby(self, home: Path, *, system_state: Path = SYSTEM_STATE) -> EmbeddedServer:
        """Make a hot standby of this server in `home`, where none may be yet; it follows until this one is stopped.

        Raises
        ------
        EmbeddedServerFailed
            If a server is there, no pg_basebackup is installed that can copy this one, or it does not start.
        AlreadyRunning, StateError
            As `start` says.
        """
        with usable(home):
            folder = make(home, self._account, system_state)
            lock = folder.lock()
            try:
                copy_cluster(folder, self._binaries, self._account, self.dsn)
            finally:
                os.close(lock)
        # what the primary was given it needs as well: max_connections, for one, must not be lower
        settings = {**self._settings, "hot_standby": "on"}
        return EmbeddedServer.start(home, binaries=self._binaries, settings=settings, system_state=system_state)

    def restart(
        self, settings: Mapping[str, str] | None = None, *, timeout_seconds: float = START_TIMEOUT_SECONDS
    ) -> None:
        """Stop the server and start it again, with `settings` on top of those it had; also after a crash of it.

        Raises
        ------
        EmbeddedServerFailed
            If it does not start, for one because of such a setting. It can be restarted with a better one.
        """
        _ = self._owned_socket_directory
        self._end("fast")
        clean_up_after_crash(self.data_directory, self._account)
        self._settings |= settings or {}
        self._spawn(timeout_seconds)

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop the server and give up its ownership; does nothing when that is done already."""
        atexit.unregister(self.stop)
        self._end(mode)
        if self._socket_directory is not None:
            remove_socket_directory(self._socket_directory)
            self._socket_directory = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def halt(self, mode: StopMode = "fast") -> None:
        """Stop the server, and keep its ownership; `restart` starts it again."""
        self._end(mode)

    def kill(self) -> None:
        """Kill the postmaster as a crash would (SIGKILL); `restart` recovers."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _owned_socket_directory(self) -> Path:
        if self._socket_directory is None:
            raise EmbeddedServerFailed("The embedded server was stopped and given up.", "Start it anew.")
        return self._socket_directory

    @property
    def _port(self) -> int:
        return self._tcp_port or DEFAULT_PORT

    def _prepare(self, system_state: Path, before_start: Callable[[Path], None] | None) -> None:
        """Put everything in place that a start needs."""
        there = self._folder.has_data()
        if there:
            self._binaries = binaries_for(self._folder, self._binaries)
            _end_what_was_left(self._folder, self._account)
            if before_start is not None:
                before_start(self.data_directory)
        self._binaries = runnable_by(self._account, self._binaries, system_state)
        if not there:
            initialise(self._folder, self._binaries, self._account)

    def _open(self, settings: Mapping[str, str], tcp_port: int | None, timeout_seconds: float) -> None:
        self._settings = dict(settings)
        self._tcp_port = _free_port() if tcp_port == 0 else tcp_port
        self._socket_directory = make_socket_directory(self._account)
        self._spawn(timeout_seconds)

    def _spawn(self, timeout_seconds: float) -> None:
        write_settings(self._folder, self._settings)
        command = [
            *(str(self._binaries.program("postgres")), "-D", str(self.data_directory)),
            *("-k", str(self._owned_socket_directory), "-p", str(self._port)),
            *("-c", f"listen_addresses={'' if self._tcp_port is None else '127.0.0.1'}"),
            *("-c", f"config_file={self._folder.settings_file}"),
        ]
        self._process = start_postmaster(command, self._folder, self._account, timeout_seconds)

    def _set_password(self, password: str | None) -> None:
        if password is not None:
            with psycopg.connect(self.dsn) as connection:
                connection.pgconn.change_password(SUPERUSER.encode(), password.encode())

    def _end(self, mode: StopMode) -> None:
        if self._process is not None:
            stop_postmaster(self._process, mode)
            self._process = None


def _end_what_was_left(folder: Folder, account: Account) -> None:
    """End the server of an owner that was killed, and remove its socket."""
    pid_file = read_pid_file(folder.data_directory)
    clean_up_after_crash(folder.data_directory, account)
    if pid_file is not None:
        remove_socket_directory(pid_file.socket_directory)


def _superuser_dsn(socket_directory: Path, port: int) -> str:
    return make_conninfo("", host=str(socket_directory), port=port, user=SUPERUSER, dbname="postgres")


def _free_port() -> int:
    """Return a port on 127.0.0.1 that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
