"""Names that somebody else has chosen are only names; what is secret or ours alone stays so."""

import os
import stat

import psycopg
import pytest
from command_line import CommandLine, by_hand, clean_environment, rows
from psycopg import sql
from psycopg.conninfo import make_conninfo

from ml_postgres_optimization.target.postgres.connection import ConnectionSettings
from ml_postgres_optimization.target.postgres.server import PostgresTarget

NAMES = {
    "63 bytes": "é" * 31 + '"',
    "lines": "a\nb\r\n; DROP SCHEMA genesis CASCADE; --",
    "quotes": "'\"''%s{0}$1:x\\",
    "terminal": "\x1b[2J\u202e\x07",
}
PASSWORD = "xK7secretq9Z"


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path):
    clean_environment(monkeypatch, tmp_path / "home")
    return CommandLine(capsys, tmp_path / "home")


@pytest.fixture(params=NAMES.values(), ids=NAMES)
def hostile(request, server):
    """A database and its owner of one hostile name."""
    name = sql.Identifier(request.param)
    by_hand(server.dsn, sql.SQL("CREATE ROLE {} LOGIN").format(name))
    by_hand(server.dsn, sql.SQL("CREATE DATABASE {0} OWNER {0}").format(name))
    yield request.param
    by_hand(server.dsn, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
    by_hand(server.dsn, sql.SQL("DROP OWNED BY {0}").format(name), sql.SQL("DROP ROLE {}").format(name))


def test_a_hostile_database_role_and_table_are_only_names(cli, server, hostile):
    dsn = make_conninfo(server.dsn, dbname=hostile, user=hostile)
    cli.dsn = dsn
    said = [cli("setup").done().out]
    table = sql.Identifier(hostile)
    by_hand(dsn, sql.SQL("CREATE TABLE {} (a int)").format(table))
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SELECT genesis.watch_table(%s::regclass)", [table.as_string()])
        connection.execute(sql.SQL("INSERT INTO {} VALUES (1)").format(table))
    for words in (("status",), ("history",), ("doctor",), ("optimize", "--dry-run"), ("rollback",), ("explain",)):
        ended = cli(*words)
        assert ended.code in {0, 1, 2}, ended
        assert "Traceback" not in ended.err and "defect" not in ended.err
        said.append(ended.out + ended.err)
    assert rows(dsn, "SELECT count(*) FROM genesis.watched_tables") == [(1,)]
    said.append(cli("uninstall").done().out)
    assert not [letter for letter in "".join(said) if not letter.isprintable() and letter != "\n"]


@pytest.mark.pg(">= 15")
def test_what_doctor_would_have_granted_to_a_hostile_role_can_be_run(cli, server, hostile, binaries):
    cli.dsn = make_conninfo(server.dsn, dbname=hostile, user=hostile)
    admin = make_conninfo(server.dsn, dbname=hostile)
    cli("setup").done()
    checks = cli("doctor", "--json").document["checks"]
    mending = [check["mend"] for check in checks if check["name"].startswith("privileges.")]
    assert mending
    by_hand(admin, *mending)
    again = {check["name"]: check for check in cli("doctor", "--json").document["checks"]}
    assert {check["state"] for name, check in again.items() if name.startswith("privileges.")} <= {"ok"}
    if binaries.has_library("dblink"):
        by_hand(admin, "CREATE EXTENSION dblink")
        again = {check["name"]: check for check in cli("doctor", "--json").document["checks"]}
        by_hand(admin, again["protection.guard_session"]["mend"])
        granted = "SELECT has_function_privilege(%s, 'dblink_connect_u(text, text)', 'EXECUTE')"
        assert rows(admin, granted, hostile) == [(True,)]
        assert rows(admin, "SELECT to_regnamespace('genesis') IS NOT NULL") == [(True,)]


def test_no_password_of_a_role_is_kept_with_the_texts_of_queries(database):
    with psycopg.connect(database, autocommit=True) as admin:
        if not admin.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'pg_stat_statements'").fetchone():
            pytest.skip("pg_stat_statements is not installed with these programs")
        admin.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        role = f"kept_{os.getpid()}"
        admin.execute(f"CREATE ROLE {role} PASSWORD '{PASSWORD}'")
        admin.execute(f"DROP ROLE {role}")
        seen = admin.execute("SELECT query FROM pg_stat_statements WHERE query LIKE %s", [f"%{PASSWORD}%"]).fetchall()
    with PostgresTarget.open(ConnectionSettings.from_dsn(database)) as target:
        texts = target.statement_texts(target.snapshot().statements)
    of_the_role = [text for text in texts.values() if role in text]
    assert any("CREATE ROLE" in text for text in of_the_role)
    assert not any(PASSWORD in text for text in texts.values())
    assert seen, "the server itself hides passwords by now: without_literals may go"


def test_state_is_for_us_alone_whatever_the_umask_is(cli, database):
    cli.dsn = database
    before = os.umask(0)
    try:
        for words in (("setup",), ("rollback",), ("status",)):
            cli(*words).done()
    finally:
        os.umask(before)
    assert (cli.home / "logs" / "genesis-pg.jsonl").is_file()
    (server_folder,) = (cli.home / "servers").iterdir()
    assert (server_folder / "journal").is_file()
    for path in (cli.home, *cli.home.rglob("*")):
        wanted = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path
