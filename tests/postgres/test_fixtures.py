"""The fixtures keep the promises that other tests build on."""

import subprocess

import psycopg
import pytest


def test_the_server_has_the_version_under_test(server, binaries):
    with psycopg.connect(server.dsn) as connection:
        assert connection.info.server_version == server.version_num == binaries.version_num


def test_a_database_is_fresh_and_ours(database):
    with psycopg.connect(database) as connection:
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
        assert tables == (0,)
        assert connection.execute("SELECT current_setting('is_superuser')").fetchone() == ("on",)
        connection.execute("CREATE TABLE left_behind ()")


def test_an_owner_owns_the_database_without_being_superuser(database, owner):
    with psycopg.connect(owner) as connection:
        row = connection.execute(
            "SELECT current_setting('is_superuser'), pg_get_userbyid(datdba) = current_user, datname"
            " FROM pg_database WHERE datname = current_database()"
        ).fetchone()
        assert row == ("off", True, psycopg.conninfo.conninfo_to_dict(database)["dbname"])
        connection.execute("CREATE TABLE public.mine ()")
        connection.execute("CREATE SCHEMA ours")


def test_a_server_of_ones_own_is_another_one(server, own_server):
    assert own_server.data_directory != server.data_directory
    with psycopg.connect(own_server.dsn) as connection:
        assert connection.execute("SHOW fsync").fetchone() == ("off",)


@pytest.mark.pg("< 14")
def test_a_test_for_another_version_is_not_run():
    pytest.fail("the oldest supported is 14")


@pytest.mark.pg(">= 14, < 15")
def test_a_test_for_one_version_runs_on_that_version(server):
    assert server.version_num // 10_000 == 14


def test_there_is_a_psql(psql, server):
    command = [psql, "-X", "-A", "-t", "-d", server.dsn, "-c", "SELECT 42"]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() == "42"
