"""What we print of shared_preload_libraries: a wrong word there, and the server does not start any more."""

import re

import pytest
from command_line import CommandLine, by_hand, clean_environment, rows
from hand_started import postmaster, started_with
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ml_postgres_optimization.target.postgres.queries import alter_system_text

LIBRARIES = ("passwordcheck", "auto_explain")  # not in the order of the alphabet
SHOWN = "SELECT setting FROM pg_settings WHERE name = 'shared_preload_libraries'"


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path):
    clean_environment(monkeypatch, tmp_path / "home")
    return CommandLine(capsys, tmp_path / "home")


def mend_of_statistics(cli):
    checks = cli("doctor", "--json").done(0, 1).document["checks"]
    return next(check["mend"] for check in checks if check["name"] == "extension.pg_stat_statements")


def preloaded_once_started_again(server, dsn):
    sockets = conninfo_to_dict(dsn)["host"]
    with postmaster(server.bin_directory, server.data_directory, sockets, 5998, {}):
        return rows(make_conninfo(dsn, port=5998), SHOWN)[0][0]


def test_doctor_adds_a_library_at_the_end_of_those_that_are_there_and_the_server_starts(cli, own_server, binaries):
    if not all(map(binaries.has_library, (*LIBRARIES, "pg_stat_statements"))):
        pytest.skip("these binaries come without contrib modules")
    by_hand(own_server.dsn, f"ALTER SYSTEM SET shared_preload_libraries = {', '.join(LIBRARIES)}")
    with started_with(own_server, {}) as dsn:
        cli.dsn = dsn
        mend = mend_of_statistics(cli)
        by_hand(dsn, mend.partition(";")[0])
    assert re.split(", ?", preloaded_once_started_again(own_server, dsn)) == [*LIBRARIES, "pg_stat_statements"]


def test_where_the_libraries_are_hidden_no_statement_is_printed_that_would_drop_them(cli, own_server, binaries):
    if not binaries.has_library("pg_stat_statements"):
        pytest.skip("these binaries come without contrib modules")
    by_hand(own_server.dsn, "CREATE ROLE reader LOGIN")
    cli.dsn = make_conninfo(own_server.dsn, user="reader")
    mend = mend_of_statistics(cli)
    assert "ALTER SYSTEM" not in mend and "hidden from role reader" in mend


def test_a_list_that_was_empty_is_put_back_by_a_statement_after_which_the_server_starts(own_server):
    by_hand(own_server.dsn, alter_system_text("shared_preload_libraries", ""))
    with started_with(own_server, {}) as dsn:
        assert rows(dsn, SHOWN) == [("",)]
