"""A line to a real server that can be cut, or fall silent, and heal."""

import socket
import threading
from contextlib import suppress

from psycopg.conninfo import conninfo_to_dict


class CuttingProxy:
    """A context; the server behind the Unix socket of `dsn` is reached at `port` on 127.0.0.1 meanwhile."""

    def __init__(self, dsn):
        parameters = conninfo_to_dict(dsn)
        self._path = f"{parameters['host']}/.s.PGSQL.{parameters['port']}"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._flows = threading.Event()
        self._flows.set()
        self._is_cut = False
        self._ends = set()
        self.port = self._listener.getsockname()[1]
        self._pumps = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def cut(self):
        """End every connection, and let no new one through."""
        self._is_cut = True
        for end in list(self._ends):
            _shut(end)

    def fall_silent(self):
        """Carry nothing more, and tell nobody."""
        self._flows.clear()

    def heal(self):
        """Carry everything again, what had been held back first."""
        self._is_cut = False
        self._flows.set()

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self.cut()
        self.heal()
        _shut(self._listener)
        self._acceptor.join()
        self._listener.close()
        for pump in self._pumps:
            pump.join()

    def _accept(self):
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self._is_cut:
                    client.close()
                    continue
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._path)
                self._ends |= {client, server}
                for source, sink in ((client, server), (server, client)):
                    pump = threading.Thread(target=self._pump, args=(source, sink), daemon=True)
                    self._pumps.append(pump)
                    pump.start()

    def _pump(self, source, sink):
        with suppress(OSError):
            while data := source.recv(65536):
                self._flows.wait()
                sink.sendall(data)
        self._flows.wait()
        for end in (source, sink):
            _shut(end)
            end.close()
            self._ends.discard(end)


def _shut(end):
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
