"""A server that somebody started by hand, with settings on its command line."""

import signal
import subprocess
import time
from contextlib import contextmanager

import psycopg

from ml_postgres_optimization.errors import ServerUnreachable
from ml_postgres_optimization.target.embedded.account import server_account
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings, connect

# What Patroni 4 gives to the postmaster; a few of them alone are anybody's.
PATRONI = {
    **{"cluster_name": "main", "wal_level": "replica", "hot_standby": "on", "max_connections": "50"},
    **{"max_wal_senders": "5", "max_prepared_transactions": "0", "max_locks_per_transaction": "64"},
    **{"track_commit_timestamp": "off", "max_replication_slots": "5", "max_worker_processes": "8"},
    "wal_log_hints": "on",
}


@contextmanager
def started_with(server, options):
    """Stop an embedded server, and start it by hand with `options` on its command line; gives its DSN."""
    dsn, sockets = server.dsn, server.data_directory.parent / "sockets"
    server.stop()
    sockets.mkdir()
    server_account().give(sockets)
    with postmaster(server.bin_directory, server.data_directory, str(sockets), 5999, options):
        yield psycopg.conninfo.make_conninfo(dsn, host=str(sockets), port=5999)


@contextmanager
def postmaster(bin_directory, data, sockets, port, options):
    """Run a server by hand, with options on its command line."""
    command = [bin_directory / "postgres", "-D", data, "-k", sockets, "-p", str(port), "-c", "listen_addresses="]
    for name, value in options.items():
        command += ["-c", f"{name}={value}"]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **server_account().process_arguments()
    )
    try:
        wait_for(ConnectionSettings.of({"host": sockets, "port": port, "user": "postgres"}))
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def wait_for(settings, seconds=30.0):
    deadline = time.monotonic() + seconds
    while True:
        try:
            return connect(settings).close()
        except ServerUnreachable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
