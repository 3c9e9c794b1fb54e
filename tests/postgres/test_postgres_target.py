"""The whole target on a real server: observed, tuned, and found again after a restart."""

import time
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from ml_postgres_optimization.errors import ServerUnreachable
from ml_postgres_optimization.knobs.configuration import Configuration
from ml_postgres_optimization.target.embedded import EmbeddedServer
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings
from ml_postgres_optimization.target.postgres.server import PostgresTarget


def opened(dsn, **options):
    return PostgresTarget.open(ConnectionSettings.from_dsn(dsn), **options)


def await_counted(dsn, seconds=10.0):
    """Wait until a commit in the new database is counted: on 14 a process of its own counts, a little later."""
    query = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
    deadline = time.monotonic() + seconds
    with psycopg.connect(dsn, autocommit=True) as connection:
        while not connection.execute(query).fetchone()[0]:
            assert time.monotonic() < deadline, "no commit was ever counted"
            time.sleep(0.05)


def test_a_server_is_observed(database):
    await_counted(database)
    with opened(database) as target:
        first, second = target.snapshot(), target.snapshot()
        assert second.values["database.commits_total"] >= first.values["database.commits_total"] > 0
        assert target.activity().connections >= 0
        assert target.capabilities.is_superuser
        assert target.machine.is_local and target.machine.memory_limit_bytes > 2**27
        memory = target.memory()
        assert memory and 0 < memory.left_bytes <= target.machine.memory_limit_bytes


def test_the_machine_s_memory_may_be_given(database):
    with opened(database, memory_override_bytes=2**30) as target:
        assert (target.machine.memory_limit_bytes, target.machine.memory_limit_source) == (2**30, "given")


def test_a_configuration_holds_what_the_server_knows(database):
    with opened(database) as target:
        found = target.configuration(["work_mem", "jit", "client.concurrency", "no_such_parameter"])
    assert found == Configuration({"work_mem": 4096, "jit": True})


def test_an_owner_without_privileges_can_observe(owner):
    await_counted(owner)
    with opened(owner) as target:
        snapshot = target.snapshot()
        assert snapshot.values["database.commits_total"] > 0
        assert not target.capabilities.is_monitor and "activity" in snapshot.unseen


def test_settings_are_written_and_put_back(own_server):
    with opened(own_server.dsn) as target:
        before = target.settings(["work_mem"])["work_mem"]
        target.write("work_mem", 8192)
        target.reload()
        assert target.configuration(["work_mem"])["work_mem"] == 8192
        target.restore("work_mem", before.written_value)
        target.reload()
        assert target.settings(["work_mem"])["work_mem"] == before


def test_a_restarted_server_is_found_again_and_a_stopped_one_missed(own_server):
    with opened(own_server.dsn) as target:
        target.snapshot()
        own_server.restart()
        assert "host.disk_free" not in target.snapshot().unseen
        own_server.restart()
        assert target.activity().connections == 0
        target.write("work_mem", 8192)
        own_server.stop()
        for ask in (target.snapshot, target.activity, target.reload, lambda: target.settings(["work_mem"])):
            with pytest.raises(ServerUnreachable) as gone:
                ask()
            assert str(gone.value).count("\n") == 1


def test_another_server_at_the_same_address_is_refused(server, own_server):
    """As after a failover to a machine that is no standby of the first."""
    with opened(own_server.dsn) as target:
        target.snapshot()
        own_server.kill()
        address = socket_of(own_server.dsn)
        address.unlink(missing_ok=True)
        address.symlink_to(socket_of(server.dsn))
        with pytest.raises(ServerUnreachable, match="Another server answers at"):
            target.snapshot()
        with pytest.raises(ServerUnreachable, match="Another server answers at"):
            target.write("work_mem", 8192)
        address.unlink()


def socket_of(dsn):
    parameters = ConnectionSettings.from_dsn(dsn).parameters
    return Path(parameters["host"]) / f".s.PGSQL.{parameters['port']}"


def test_several_hosts_are_narrowed_to_the_one_that_was_reached(binaries, session_folder):
    home = session_folder / "several"
    with (
        EmbeddedServer.start(
            home, binaries=binaries, tcp_port=0, password="x y", system_state=session_folder / "system"
        ) as server,
        opened(
            make_conninfo(server.dsn, host="127.0.0.1,127.0.0.1", port=f"1,{server.tcp_port}", password="x y")
        ) as target,
    ):
        reached = target.settings_of_connection
        assert reached.parameters["port"] == str(server.tcp_port)
        assert "x y" not in f"{reached!r} {target!r}"
        assert target.snapshot().values
