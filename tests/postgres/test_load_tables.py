"""The tables of our own load: made once, deterministic, dropped only when they are ours."""

import threading
from collections import namedtuple

import psycopg
import pytest

from ml_postgres_optimization.errors import PrivilegeMissing, SchemaForeign, ServerUnreachable, UsageError
from ml_postgres_optimization.workload import (
    LOAD_TABLES,
    create_tables,
    drop_tables,
    tables,
    tables_exist,
    tables_scale,
)

SCALE = 0.005


def one(dsn, query):
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(query).fetchone()[0]


def run(dsn, *statements):
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


CONTENTS = """
    SELECT md5(string_agg(line, chr(10) ORDER BY line)) FROM (
        SELECT account_id || ',' || balance || ',' || updates_total || ',' || filler FROM genesis_load.accounts
        UNION ALL
        SELECT operation_id || ',' || account_id || ',' || kind || ',' || amount || ',' || extract(epoch FROM at)
        FROM genesis_load.operations
        UNION ALL SELECT event_id || ',' || account_id || ',' || other_account_id || ',' || amount
        FROM genesis_load.event_log
    ) AS lines (line)
"""
OID = "SELECT 'genesis_load.accounts'::regclass::oid::bigint"


def test_an_owner_without_superuser_makes_finds_and_drops_them(owner):
    assert tables_scale(owner) is None
    assert not tables_exist(owner)
    create_tables(owner, SCALE)
    assert tables_scale(owner) == SCALE
    assert one(owner, "SELECT count(*) FROM genesis_load.accounts") == 2_000
    assert one(owner, "SELECT count(*) FROM genesis_load.operations") == 1_500
    assert one(owner, "SELECT count(*) FROM genesis_load.event_log") == 250
    assert one(
        owner,
        "SELECT array_agg(DISTINCT reltuples > 0) FROM pg_class WHERE relkind = 'r'"
        " AND relnamespace = 'genesis_load'::regnamespace",
    ) == [True]
    drop_tables(owner)
    assert tables_scale(owner) is None
    drop_tables(owner)


def test_the_same_scale_is_left_alone_and_another_one_made_anew(database):
    create_tables(database, SCALE)
    first = one(database, OID)
    create_tables(database, SCALE)
    assert one(database, OID) == first
    create_tables(database, 2 * SCALE)
    assert one(database, OID) != first
    assert tables_scale(database) == 2 * SCALE
    assert one(database, "SELECT count(*) FROM genesis_load.accounts") == 4_000


def test_they_are_the_same_every_time(database):
    create_tables(database, SCALE)
    first = one(database, CONTENTS)
    drop_tables(database)
    create_tables(database, SCALE)
    assert one(database, CONTENTS) == first


def test_every_row_belongs_to_an_account(database):
    create_tables(database, SCALE)
    orphans = (
        "SELECT count(*) FROM genesis_load.{} LEFT JOIN genesis_load.accounts USING (account_id)"
        " WHERE balance IS NULL"
    )
    assert one(database, orphans.format("operations")) == 0
    assert one(database, orphans.format("event_log")) == 0
    assert one(database, "SELECT min(account_id) || ' ' || max(account_id) FROM genesis_load.accounts") == "1 2000"


def test_a_schema_of_somebody_else_is_never_touched(database):
    run(database, "CREATE SCHEMA genesis_load", "CREATE TABLE genesis_load.accounts (theirs text)")
    for attempt in (
        lambda: create_tables(database, SCALE),
        lambda: drop_tables(database),
        lambda: tables_scale(database),
    ):
        with pytest.raises(SchemaForeign):
            attempt()
    run(database, "COMMENT ON SCHEMA genesis_load IS 'our load tables'")
    with pytest.raises(SchemaForeign):
        drop_tables(database)
    assert one(database, "SELECT count(*) FROM genesis_load.accounts") == 0


def test_an_older_layout_counts_as_absent_and_is_made_anew(database):
    create_tables(database, SCALE)
    run(
        database,
        "DROP TABLE genesis_load.event_log",
        "COMMENT ON SCHEMA genesis_load IS 'Tables of genesis-pg''s own load; layout 0, scale 0.005.'",
    )
    assert tables_scale(database) is None
    create_tables(database, SCALE)
    assert tables_scale(database) == SCALE
    assert one(database, "SELECT count(*) FROM genesis_load.event_log") == 250


@pytest.mark.parametrize("scale", [0, -1, 0.0001, 5_001, float("nan"), float("inf")])
def test_a_scale_that_makes_no_sense_is_refused(database, scale):
    with pytest.raises(UsageError, match="scale"):
        create_tables(database, scale)


def test_a_scale_that_does_not_fit_on_the_disk_is_refused_before_anything_is_done(database, monkeypatch):
    create_tables(database, SCALE)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(tables.shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 10**8, 10**8))
    with pytest.raises(UsageError, match=r"at most 0\.37"):
        create_tables(database, 1.0)
    assert tables_scale(database) == SCALE


def test_two_at_once_make_them_once(database):
    failures = []

    def make():
        try:
            create_tables(database, SCALE)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=make) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert tables_scale(database) == SCALE


def test_a_role_without_the_privilege_is_told(server, database):
    from psycopg.conninfo import make_conninfo

    run(database, "CREATE ROLE load_nobody LOGIN")
    try:
        with pytest.raises(PrivilegeMissing):
            create_tables(make_conninfo(database, user="load_nobody"), SCALE)
        assert tables_scale(database) is None
    finally:
        run(database, "DROP ROLE load_nobody")


def test_a_server_that_is_not_there(tmp_path):
    with pytest.raises(ServerUnreachable):
        create_tables(f"host={tmp_path} port=5432 user=nobody dbname=nowhere", SCALE)


@pytest.mark.slow
def test_scale_1_is_about_100_megabytes(database):
    create_tables(database, 1.0)
    size = one(
        database,
        "SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class"
        " WHERE relnamespace = 'genesis_load'::regnamespace AND relkind = 'r'",
    )
    assert size == pytest.approx(LOAD_TABLES.bytes_at_scale_1, rel=0.1)
