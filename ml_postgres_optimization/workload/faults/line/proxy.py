"""A line to a server of our own that can be slow, be cut, fall silent, and lose the reply to a COMMIT."""

from __future__ import annotations

import math
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from types import TracebackType

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.workload.faults.line.frontend import FrontendStream, asks_for_encryption, is_commit
from ml_postgres_optimization.workload.faults.locality import check_local, host_and_port

LONGEST_DELAY_SECONDS = 60.0
_CHUNK_BYTES = 65_536
_NOT_ENCRYPTED = b"N"
_HERE = "127.0.0.1"
_Address = tuple[socket.AddressFamily, str | tuple[str, int]]


class CommitCut(StrEnum):
    """Where a connection ends around a COMMIT."""

    BEFORE = "before"
    """The COMMIT never reaches the server."""
    FORWARDED = "forwarded"
    """It is sent on, and both ends are cut at once."""
    ANSWERED = "answered"
    """The server has answered it, and the answer is thrown away."""


class FaultProxy:
    """A line to a server on this machine; a context.

    Parameters
    ----------
    dsn : str
        Of the server: behind a Unix socket, or on loopback.
    seed : int
        Of what is drawn.

    Attributes
    ----------
    dsn : str
        Of the server by way of this line, while the context lasts.
    cuts : dict of CommitCut to int
        How many connections were cut around a COMMIT.

    Raises
    ------
    UsageError
        If the server is on another machine.
    """

    def __init__(self, dsn: str, *, seed: int = 0) -> None:
        self._home = self._destination = _address(dsn)
        self._listener = socket.create_server((_HERE, 0))
        self.port: int = self._listener.getsockname()[1]
        address = {"hostaddr": _HERE} if conninfo_to_dict(dsn).get("hostaddr") else {}
        self.dsn = make_conninfo(dsn, host=_HERE, port=self.port, **address)
        self.cuts = dict.fromkeys(CommitCut, 0)
        self._random = random.Random(seed)
        self._commit_cuts: tuple[CommitCut, ...] = ()
        self._commit_cut_ratio = 0.0
        self._commit_cuts_left = math.inf
        self._delay_seconds = 0.0
        self._is_cut = False
        self._flows = threading.Event()
        self._flows.set()
        self._state = threading.Lock()
        self._lines: set[_Line] = set()
        self._acceptor = threading.Thread(target=self._accept, name="fault-proxy", daemon=True)
        self._acceptor.start()

    @property
    def connections(self) -> int:
        """How many connections it carries."""
        return len(self._lines)

    @property
    def is_whole(self) -> bool:
        """Whether it carries everything at once, new connections too, to the server that it is a line to."""
        is_open = self._flows.is_set() and not self._is_cut and self._destination is self._home
        return is_open and not self._delay_seconds and not self._commit_cut_ratio

    def cut(self) -> int:
        """End every connection, let no new one through, and return how many there were."""
        self._is_cut = True
        return self._end_all()

    def fall_silent(self) -> None:
        """Carry nothing more, and tell nobody."""
        self._flows.clear()

    def let_through(self) -> None:
        """Let new connections through again after a `cut`."""
        self._is_cut = False

    def flow(self) -> None:
        """Carry everything again, what had been held back first."""
        self._flows.set()

    def heal(self) -> None:
        """Let through and carry everything again, what had been held back first."""
        self.let_through()
        self.flow()

    def lead_to(self, dsn: str | None) -> int:
        """End every connection, lead new ones to another server, None for the first; return how many there were.

        Raises
        ------
        UsageError
            If that server is on another machine.
        """
        self._destination = self._home if dsn is None else _address(dsn)
        return self._end_all()

    def delay(self, seconds: float) -> None:
        """Hold back everything that comes for `seconds`, each way."""
        if not 0.0 <= seconds <= LONGEST_DELAY_SECONDS:
            raise UsageError(f"A delay of {seconds!r} s is none.", f"Choose from 0 to {LONGEST_DELAY_SECONDS:g} s.")
        self._delay_seconds = seconds

    @contextmanager
    def cutting_commits(self, ratio: float, *ways: CommitCut, most: float = math.inf) -> Iterator[None]:
        """Cut connections around a share of their COMMITs, until the block ends.

        Parameters
        ----------
        ratio : float
            0 to 1.
        *ways : CommitCut
            One is drawn for each; all of them when none is named.
        most : int
            How many to cut at most.
        """
        if not 0.0 <= ratio <= 1.0:
            raise UsageError(f"{ratio!r} is no share.", "Choose from 0 to 1.")
        with self._state:
            self._commit_cuts, self._commit_cut_ratio, self._commit_cuts_left = ways or tuple(CommitCut), ratio, most
        try:
            yield
        finally:
            with self._state:
                self._commit_cut_ratio = 0.0

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.cut()
        _shut(self._listener)
        self._acceptor.join()
        self._listener.close()
        self._flows.set()
        for line in list(self._lines):
            line.join()

    def _end_all(self) -> int:
        lines = list(self._lines)
        for line in lines:
            line.end()
        return len(lines)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._connect(client)

    def _connect(self, client: socket.socket) -> None:
        destination = self._destination
        server = socket.socket(destination[0])
        try:
            if self._is_cut:
                raise ConnectionRefusedError
            server.connect(destination[1])
        except OSError:
            client.close()
            server.close()
            return
        line = _Line(self, client, server)
        self._lines.add(line)
        line.start()
        if self._is_cut or self._destination is not destination:  # meanwhile
            line.end()

    # what the two threads of a line ask

    def pass_on(self) -> None:
        """Wait as long as what comes is held back."""
        self._flows.wait()
        if self._delay_seconds:
            time.sleep(self._delay_seconds)

    def draw_commit_cut(self) -> CommitCut | None:
        """Return how to cut around a COMMIT; None for letting it pass."""
        with self._state:
            if self._commit_cuts_left <= 0 or self._random.random() >= self._commit_cut_ratio:
                return None
            self._commit_cuts_left -= 1
            way = self._random.choice(self._commit_cuts)
            self.cuts[way] += 1
            return way

    def forget(self, line: _Line) -> None:
        """Take that a line has ended."""
        self._lines.discard(line)


class _Line:
    """One connection: a thread each way."""

    def __init__(self, proxy: FaultProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client, self._server = client, server
        self._swallows_reply = threading.Event()
        self._threads = tuple(
            threading.Thread(target=pump, daemon=True) for pump in (self._to_server, self._to_client)
        )

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def end(self) -> None:
        """Cut it at both ends."""
        _shut(self._client)
        _shut(self._server)

    def _to_server(self) -> None:
        with suppress(OSError):
            self._carry_to_server()
        self.end()

    def _to_client(self) -> None:
        with suppress(OSError):
            self._carry_to_client()
        self.end()
        self._threads[0].join()
        self._client.close()
        self._server.close()
        self._proxy.forget(self)

    def _carry_to_server(self) -> None:
        stream = FrontendStream()
        while data := self._client.recv(_CHUNK_BYTES):
            self._proxy.pass_on()
            for message in stream.messages(data):
                if asks_for_encryption(message):
                    self._client.sendall(_NOT_ENCRYPTED)  # or nobody here could read what follows
                elif not self._sent_on(message):
                    return

    def _sent_on(self, message: bytes) -> bool:
        """Send a message on, and tell whether the line lives."""
        way = self._proxy.draw_commit_cut() if is_commit(message) else None
        if way is CommitCut.BEFORE:
            return False
        if way is not None:  # a server that is quick may answer before the line is gone
            self._swallows_reply.set()
        self._server.sendall(message)
        return way is not CommitCut.FORWARDED

    def _carry_to_client(self) -> None:
        while data := self._server.recv(_CHUNK_BYTES):
            self._proxy.pass_on()
            if self._swallows_reply.is_set():
                return
            self._client.sendall(data)


def _address(dsn: str) -> _Address:
    check_local(dsn)
    host, port = host_and_port(dsn)
    if host.startswith("/"):
        return socket.AF_UNIX, f"{host}/.s.PGSQL.{port}"
    if host.startswith("@"):
        return socket.AF_UNIX, f"\0{host[1:]}/.s.PGSQL.{port}"
    return socket.AF_INET6 if ":" in host else socket.AF_INET, (host, port)


def _shut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
