"""The whole product as a login role that is a member of genesis_tune and of nothing else: no superuser anywhere."""

import pytest
from command_line import CommandLine, by_hand, clean_environment, rows, written_settings
from psycopg.conninfo import make_conninfo

from ml_postgres_optimization.interfaces.home import resolve_home
from ml_postgres_optimization.interfaces.reporter import Silence
from ml_postgres_optimization.interfaces.session import open_session
from ml_postgres_optimization.interfaces.settings import Settings
from ml_postgres_optimization.interfaces.workbench import load
from ml_postgres_optimization.interfaces.workbench.ground import survey
from ml_postgres_optimization.knobs.configuration import CONCURRENCY, Change
from ml_postgres_optimization.target.postgres.capabilities import read_capabilities
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings, connect
from ml_postgres_optimization.workload import free_connections

SHORT = ("--duration", "0.006", "--scale", "0.02", "--level", "BASIC")


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path):
    clean_environment(monkeypatch, tmp_path / "home")
    monkeypatch.setattr(load, "CAPACITY_SECONDS", 0.5)
    return CommandLine(capsys, tmp_path / "home")


@pytest.fixture
def tuner(cli, own_server):
    """The command line as the tuner; a superuser has made the roles, and nothing else."""
    cli.dsn = own_server.dsn
    cli("setup", "--roles").done()
    by_hand(own_server.dsn, "CREATE ROLE shop_tuner LOGIN IN ROLE genesis_tune")
    cli.dsn = make_conninfo(own_server.dsn, user="shop_tuner")
    return cli


def test_the_load_stays_within_the_connections_of_its_role_and_of_its_database(tuner, own_server):
    tuner("setup").done()
    limited = make_conninfo(own_server.dsn, user="genesis_tune")
    with connect(ConnectionSettings.from_dsn(limited)) as connection:
        limit = read_capabilities(connection).connection_limit
        assert limit == 40
        assert free_connections(limited) == limit - 1
        by_hand(own_server.dsn, "ALTER DATABASE postgres CONNECTION LIMIT 30")
        assert read_capabilities(connection).connection_limit == 30
        assert free_connections(limited) == 29
    where = resolve_home({"GENESIS_HOME": str(tuner.home)}, None)
    with open_session(Settings(dsn=limited), where, {}, Silence()) as session:
        assert survey(session, connections=20).catalogue[CONCURRENCY].maximum == 30 - load.CONNECTIONS_KEPT_FREE
    assert free_connections(own_server.dsn) > 40, "no limit holds for a superuser"


def checks_of(cli):
    return {check["name"]: check for check in cli("doctor", "--json").done(0, 1).document["checks"]}


def promote(dsn, home, values):
    """Put something in force for good, by the guard and with all who stand by."""
    where = resolve_home({"GENESIS_HOME": str(home)}, None)
    with (
        open_session(Settings(dsn=dsn), where, {}, Silence()) as session,
        session.sole_optimizer() as journal,
    ):
        ground = survey(session)
        change = Change(ground.initial, ground.initial.replaced(values))
        with ground.guard(journal).trial(change, "t1") as trial:
            trial.apply()
            trial.confirm()


@pytest.mark.slow
@pytest.mark.pg(">= 15")
def test_every_command_works_without_a_superuser(tuner, own_server):
    with connect(ConnectionSettings.from_dsn(tuner.dsn)) as connection:
        found = read_capabilities(connection)
    assert not found.is_superuser and not found.is_owner and found.may_change("work_mem")
    assert found.connection_limit is None
    before = written_settings(own_server.dsn)
    tuner("setup").done()
    assert tuner("doctor").done().out.count("FAILURE") == 0
    tuner("simulate", "--duration", "0.002", "--scale", "0.02").done(0, 1)
    assert tuner("optimize", "--simulate", "--trials", "1", *SHORT, "--json").done().document["trials"]
    for words in (("status",), ("history",), ("explain",), ("export",), ("train",)):
        tuner(*words).done(0, 1)
    promote(tuner.dsn, tuner.home, {"checkpoint_completion_target": 0.8})
    assert ("checkpoint_completion_target", "0.8") in written_settings(own_server.dsn)
    tuner("rollback").done()
    assert written_settings(own_server.dsn) == before
    assert "DROP ROLE" in tuner("uninstall").done().out
    assert rows(own_server.dsn, "SELECT nspname FROM pg_namespace WHERE nspname ~ '^genesis'") == []


@pytest.mark.pg(">= 15")
def test_what_the_tuner_lacks_is_said_with_the_grant_that_mends_it(tuner, own_server):
    tuner("setup").done()
    assert {name: check["state"] for name, check in checks_of(tuner).items() if name.startswith("privileges.")} == {
        "privileges.monitor": "ok",
        "privileges.alter_system": "ok",
    }
    by_hand(own_server.dsn, "REVOKE ALTER SYSTEM ON PARAMETER jit FROM genesis_tune")
    lacking = checks_of(tuner)["privileges.alter_system"]
    assert lacking["state"] == "warning" and "jit" in lacking["found"]
    by_hand(own_server.dsn, lacking["mend"])
    assert checks_of(tuner)["privileges.alter_system"]["state"] == "ok"


@pytest.mark.pg(">= 15")
def test_the_guard_session_is_told_of_with_what_it_needs(tuner, own_server, binaries):
    if not binaries.has_library("dblink"):
        pytest.skip("these binaries come without dblink")
    by_hand(own_server.dsn, 'CREATE SCHEMA "odd ""schema"', 'CREATE EXTENSION dblink SCHEMA "odd ""schema"')
    lacking = checks_of(tuner)["protection.guard_session"]
    assert lacking["state"] == "warning" and "watchdog" in lacking["found"]
    by_hand(own_server.dsn, lacking["mend"])
    assert checks_of(tuner)["protection.guard_session"]["state"] == "ok"
