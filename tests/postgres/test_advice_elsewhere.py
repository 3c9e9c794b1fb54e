"""Where nothing of the server is ours to change: what optimize and doctor say, and that it can be run as it is."""

import subprocess

import psycopg
import pytest
from command_line import CommandLine, by_hand, clean_environment, rows, written_settings
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from ml_postgres_optimization.target.host import locality

SIZED_BY_MEMORY = {"effective_cache_size", "maintenance_work_mem", "shared_buffers", "work_mem"}
SETTINGS = {
    "rds.extensions": ("Amazon RDS", "aws rds modify-db-parameter-group"),
    "cloudsql.iam_authentication": ("Google Cloud SQL", "gcloud sql instances patch"),
    "azure.extensions": ("Azure Database for PostgreSQL", "az postgres flexible-server parameter set"),
    "cnpg.config_sha256": ("CloudNativePG", "    parameters:"),
}


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path):
    clean_environment(monkeypatch, tmp_path / "home")
    return CommandLine(capsys, tmp_path / "home")


def managed_check(cli):
    return next(check for check in cli("doctor", "--json").document["checks"] if check["name"] == "managers")


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_managed_server_gets_advice_in_its_own_words_and_is_not_touched(cli, database, owner, setting):
    manager, words = SETTINGS[setting]
    name = sql.Identifier(conninfo_to_dict(owner)["dbname"])
    by_hand(database, sql.SQL("ALTER DATABASE {} SET {} = 'on'").format(name, sql.SQL(setting)))
    cli.dsn = owner
    before = written_settings(database)
    advised = cli("optimize", "--dry-run", "--json").done().document
    assert manager in advised["because"] and words in "\n".join(advised["way"]) and advised["settings"]
    assert cli("optimize", "--duration", "0.001").done(3).out.startswith(f"-- {manager} manages the settings")
    check = managed_check(cli)
    assert check["state"] == "warning" and manager in check["found"] and "--dry-run" in check["mend"]
    assert "GRANT" not in cli("doctor").out.replace("GRANT pg_monitor", ""), "no grant is advised that would not help"
    assert written_settings(database) == before


def test_a_managed_server_whose_memory_is_not_seen_gets_no_setting_that_is_sized_by_it(
    cli, database, owner, monkeypatch
):
    name = sql.Identifier(conninfo_to_dict(owner)["dbname"])
    by_hand(database, sql.SQL("ALTER DATABASE {} SET rds.extensions = 'on'").format(name))
    session = locality._Session(2**22 + 1, 1.0e9, None)
    monkeypatch.setattr(locality, "_read_session", lambda _: session)
    cli.dsn = owner
    advised = cli("optimize", "--dry-run", "--json").done().document
    assert advised["settings"] and not advised["settings"].keys() & SIZED_BY_MEMORY
    assert advised["left_out"].keys() >= SIZED_BY_MEMORY and "--memory-limit-bytes" in advised["because"]
    assert not [line for line in advised["way"] if "shared_buffers" in line or "work_mem" in line]
    told = cli("optimize", "--dry-run", "--json", "--memory-limit-bytes", 2**36).done().document
    assert "shared_buffers" in told["settings"] and "--memory-limit-bytes" not in told["because"]


def test_what_the_owner_is_advised_runs_and_new_sessions_have_it(cli, database, owner):
    cli.dsn = owner
    advised = cli("optimize", "--dry-run", "--json").done().document
    assert advised["sql"]
    by_hand(owner, *advised["sql"])
    with psycopg.connect(owner) as connection:
        for statement in advised["sql"]:
            name, _, value = statement.rstrip(";").partition(" SET ")[2].partition(" = ")
            assert connection.execute("SHOW " + name).fetchone() == (value.strip("'"),)


def test_what_a_superuser_is_advised_runs_whatever_the_role_is_called(cli, own_server, psql):
    name = 'reader\nDROP ROLE postgres; -- "'
    by_hand(own_server.dsn, sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
    cli.dsn = psycopg.conninfo.make_conninfo(own_server.dsn, user=name)
    advised = cli("optimize", "--dry-run", "--json").done().document
    assert advised["sql"] == [], "the role does not own the database"
    text = cli("optimize", "--dry-run").done().out
    command = [psql, "-X", "-v", "ON_ERROR_STOP=1", own_server.dsn]
    subprocess.run(command, input=text, text=True, check=True, capture_output=True)
    assert {name for name, _ in written_settings(own_server.dsn)} == set(advised["settings"])
    assert rows(own_server.dsn, "SELECT name FROM pg_file_settings WHERE error ~ 'syntax|invalid|unrecognized'") == []


@pytest.mark.pg(">= 17")
def test_where_alter_system_is_off_lines_for_the_file_are_given_that_the_server_takes(cli, own_server):
    own_server.restart({"allow_alter_system": "off"})
    cli.dsn = own_server.dsn
    advised = cli("optimize", "--dry-run", "--json").done().document
    assert "allow_alter_system = off" in advised["because"]
    assert managed_check(cli)["found"].startswith("allow_alter_system is off")
    with (own_server.data_directory / "postgresql.conf").open("a") as file:
        file.write("\n".join(["", *advised["way"], ""]))
    seen = dict(
        rows(own_server.dsn, "SELECT name, error FROM pg_file_settings WHERE name = ANY (%s)", [*advised["settings"]])
    )
    assert seen.keys() == advised["settings"].keys()
    assert set(seen.values()) <= {None, "setting could not be applied"}
