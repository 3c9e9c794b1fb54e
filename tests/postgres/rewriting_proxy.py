"""A proxy before a real server that rewrites what the server says: stands for poolers, old versions, cut lines."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from psycopg.conninfo import conninfo_to_dict

Rewrite = Callable[[bytes], bytes]


def as_it_is(data: bytes) -> bytes:
    return data


def as_a_pooler(data: bytes) -> bytes:
    """Announce another backend process than the one that answers (message BackendKeyData)."""
    head, key, rest = data.partition(b"K\x00\x00\x00\x0c")
    return head + key + bytes([rest[0] ^ 0x40]) + rest[1:] if key else data


def as_version_13(data: bytes) -> bytes:
    """Announce PostgreSQL 13 (message ParameterStatus); the length stays the same."""
    head, name, rest = data.partition(b"server_version\x00")
    return head + name + b"13" + rest[2:] if name else data


@contextmanager
def rewriting_proxy(dsn: str, rewrite: Rewrite = as_it_is) -> Iterator[int]:
    """Give the port on 127.0.0.1 of a proxy before the server behind the Unix socket of `dsn`."""
    parameters = conninfo_to_dict(dsn)
    path = f"{parameters['host']}/.s.PGSQL.{parameters['port']}"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener, path, rewrite), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, path: str, rewrite: Rewrite) -> None:
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            server = socket.socket(socket.AF_UNIX)
            server.connect(path)
            for source, sink, change in ((client, server, as_it_is), (server, client, rewrite)):
                threading.Thread(target=_pump, args=(source, sink, change), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket, rewrite: Rewrite) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(rewrite(data))
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
