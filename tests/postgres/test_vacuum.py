"""A table that is vacuumed in the background, and what may not be or is broken off."""

import time

import psycopg
import pytest

from ml_postgres_optimization.target.postgres.connection import ConnectionSettings
from ml_postgres_optimization.target.postgres.server import PostgresTarget

PATIENCE_SECONDS = 30.0
RUNNING = "SELECT count(*) FROM pg_stat_progress_vacuum WHERE relid = 'orders'::regclass"
DEAD = "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relid = 'orders'::regclass"
VACUUMED = "SELECT vacuum_count FROM pg_stat_user_tables WHERE relid = 'orders'::regclass"


@pytest.fixture
def session(database):
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE orders (id integer, note text) WITH (autovacuum_enabled = off)")
        yield connection


@pytest.fixture
def target(database):
    with PostgresTarget.open(ConnectionSettings.from_dsn(database)) as opened:
        yield opened


def fill(session, rows):
    session.execute(
        "INSERT INTO orders SELECT number, repeat('x', 400) FROM generate_series(1, %s) AS number", (rows,)
    )
    session.execute("UPDATE orders SET id = id + 1 WHERE id % 3 = 0")
    waited_for(session, DEAD, lambda dead: dead >= rows // 3)


def waited_for(session, query, is_so):
    until = time.monotonic() + PATIENCE_SECONDS
    while not is_so(session.execute(query).fetchone()[0]):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_the_table_with_the_most_dead_rows_is_vacuumed_while_nobody_waits(session, target):
    fill(session, 30_000)
    table = target.bloated_table()
    assert str(table) == "public.orders"
    assert table.dead_rows >= 10_000
    assert (table.is_vacuumed, table.may_be_vacuumed) == (False, True)
    assert target.begin_vacuum(table)
    waited_for(session, VACUUMED, lambda count: count == 1)
    waited_for(session, DEAD, lambda dead: dead == 0)
    target.end_vacuum()
    assert target.begin_vacuum(table), "the one before is done"
    target.end_vacuum()


def test_what_is_under_way_is_broken_off_and_there_is_one_at_a_time(session, target):
    fill(session, 150_000)
    table = target.bloated_table()
    assert target.begin_vacuum(table)
    waited_for(session, RUNNING, lambda running: running == 1)
    assert target.bloated_table().is_vacuumed
    assert not target.begin_vacuum(table)
    target.end_vacuum()
    waited_for(session, RUNNING, lambda running: running == 0)
    assert session.execute(VACUUMED).fetchone() == (0,)
    target.end_vacuum()


def test_a_locked_table_is_passed_over(session, target, database):
    fill(session, 30_000)
    table = target.bloated_table()
    with psycopg.connect(database) as holder:
        holder.execute("LOCK TABLE orders IN SHARE UPDATE EXCLUSIVE MODE")
        assert target.begin_vacuum(table)
        waited_for(
            session,
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'VACUUM%' AND state = 'active'",
            lambda running: running == 0,
        )
        assert session.execute(VACUUMED).fetchone() == (0,)


def test_a_role_that_may_not_is_told_so(session, database):
    fill(session, 30_000)
    session.execute("CREATE ROLE reader_of_orders LOGIN")
    session.execute("GRANT pg_monitor TO reader_of_orders")
    try:
        reader = psycopg.conninfo.make_conninfo(database, user="reader_of_orders")
        with PostgresTarget.open(ConnectionSettings.from_dsn(reader)) as target:
            assert not target.bloated_table().may_be_vacuumed
            if target.capabilities.major >= 17:
                session.execute("GRANT MAINTAIN ON orders TO reader_of_orders")
                assert target.bloated_table().may_be_vacuumed
    finally:
        session.execute("DROP OWNED BY reader_of_orders; DROP ROLE reader_of_orders")
