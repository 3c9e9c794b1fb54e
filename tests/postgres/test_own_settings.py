"""Settings that roles and databases have for themselves, seen by those who work there: they win over the server's."""

import psycopg
import pytest
from command_line import CommandLine, by_hand, clean_environment
from psycopg.conninfo import make_conninfo

from ml_postgres_optimization.target.postgres.capabilities import read_capabilities


@pytest.fixture
def roles(own_server):
    by_hand(
        own_server.dsn,
        "CREATE DATABASE shop",
        "CREATE ROLE app LOGIN",
        'CREATE ROLE "re;port\'s" LOGIN',
        "ALTER ROLE app SET work_mem = '8MB'",
        "ALTER ROLE app IN DATABASE shop SET jit = off",
        "ALTER DATABASE shop SET random_page_cost = 1.1",
        "ALTER ROLE \"re;port's\" SET work_mem = '64MB'",
        "ALTER ROLE \"re;port's\" SET search_path = 'a=b', public",
    )
    return own_server


def at_work(server, role, database):
    return psycopg.connect(make_conninfo(server.dsn, user=role, dbname=database), application_name="shop")


def seen(server):
    with psycopg.connect(server.dsn, application_name="genesis-pg: test") as connection:
        return read_capabilities(connection)


def test_only_who_works_here_counts_and_each_by_its_own(roles):
    nobody = seen(roles)
    assert nobody.workers == frozenset()
    assert not nobody.reaches_nobody("work_mem")
    with at_work(roles, "app", "shop"), at_work(roles, "re;port's", "postgres"):
        found = seen(roles)
        app, report = "app@shop", "re;port's@postgres"
        assert found.workers == {app, report}
        assert found.own_settings == {
            "work_mem": {app, report},
            "jit": {app},
            "random_page_cost": {app},
            "search_path": {report},
        }
        assert found.reaches_nobody("work_mem")
        assert not found.reaches_nobody("jit")
        with at_work(roles, "postgres", "postgres"):
            assert not seen(roles).reaches_nobody("work_mem")


def test_what_reaches_nobody_is_left_out_and_what_reaches_some_is_tuned(roles, capsys, folder, monkeypatch):
    clean_environment(monkeypatch, folder)
    cli = CommandLine(capsys, folder, roles.dsn)
    with at_work(roles, "app", "shop"), at_work(roles, "re;port's", "postgres"):
        document = cli("optimize", "--dry-run", "--json").done().document
        assert "app@shop, re;port's@postgres" in document["left_out"]["work_mem"]
        assert "jit" not in document["left_out"]
        cli("setup").done()
        told = cli("optimize", "--duration", "0.0003").out
        assert "jit (app@shop)" in told
