"""Partitions of a day: made ahead, dropped by retention, and never in the way of a row."""

from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from ml_postgres_optimization.target.postgres.connection import ConnectionSettings, connect
from ml_postgres_optimization.target.postgres.schema import install_schema

TABLES = ("metric_windows", "operation_windows", "operations", "predictions")


@pytest.fixture
def session(owner):
    with connect(ConnectionSettings.from_dsn(owner)) as connection:
        install_schema(connection)
        yield connection


def partitions(session, table):
    rows = session.execute(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %s::text::regclass ORDER BY 1",
        [f"genesis.{table}"],
    )
    return [name.removeprefix(f"genesis.{table}_") for (name,) in rows]


def day(offset):
    return f"p{datetime.now(UTC) + timedelta(days=offset):%Y%m%d}"


def add_window(session, started_at, table="metric_windows"):
    return session.execute(
        "INSERT INTO genesis.metric_windows (started_at, ended_at, configuration_id) VALUES (%s, %s, 'x') "
        "RETURNING tableoid::regclass::text",
        [started_at, started_at + timedelta(seconds=10)],
    ).fetchone()[0]


def test_they_are_made_ahead_for_every_table(session):
    for table in TABLES:
        assert partitions(session, table) == sorted(["default", *(day(ahead) for ahead in range(4))])
    assert session.execute("SELECT genesis.ensure_partitions()").fetchone() == (0,)


def test_how_far_ahead_is_a_setting(session):
    session.execute("UPDATE genesis.settings SET partitions_ahead = 5")
    assert session.execute("SELECT genesis.ensure_partitions()").fetchone() == (2 * len(TABLES),)
    assert day(5) in partitions(session, "operations")


def test_late_and_early_rows_are_taken(session):
    now = datetime.now(UTC)
    assert add_window(session, now) == f"genesis.metric_windows_{day(0)}"
    assert add_window(session, now - timedelta(days=400)) == "genesis.metric_windows_default"
    assert add_window(session, now + timedelta(days=400)) == "genesis.metric_windows_default"


def test_what_the_default_took_moves_when_its_day_is_made(session):
    for table in TABLES:
        session.execute(f"DROP TABLE genesis.{table}_{day(0)}")
    assert add_window(session, datetime.now(UTC)) == "genesis.metric_windows_default"
    session.execute(
        "INSERT INTO genesis.operations SELECT clock_timestamp(), clock_timestamp(), 's', 't', 'INSERT', n, 'r' "
        "FROM generate_series(1, 3) AS n"
    )
    assert session.execute("SELECT genesis.ensure_partitions()").fetchone() == (len(TABLES),)
    for table, rows in (("metric_windows", 1), ("operations", 3)):
        counts = session.execute(
            f"SELECT (SELECT count(*) FROM genesis.{table}_{day(0)}), (SELECT count(*) FROM genesis.{table}_default)"
        ).fetchone()
        assert counts == (rows, 0)


def test_a_lost_default_partition_is_made_again(session):
    session.execute(f"DROP TABLE genesis.operations_default, genesis.operations_{day(0)}")
    session.execute("SELECT genesis.maintain()")
    assert {"default", day(0)} <= set(partitions(session, "operations"))


def test_retention_drops_whole_days_and_keeps_the_rest(session):
    for offset in (-31, -30, -29):
        for table, key in (("operations", "at"), ("metric_windows", "started_at")):
            session.execute(
                "SELECT genesis.add_partition(%s::text::name, %s::text::name, (now() AT TIME ZONE 'UTC')::date + %s)",
                [table, key, offset],
            )
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    session.execute("DROP TABLE genesis.metric_windows_" + day(-30))
    add_window(session, midnight - timedelta(days=30))  # in the default partition, and to be kept
    add_window(session, midnight - timedelta(days=30, microseconds=1))  # there too, and expired
    assert session.execute("SELECT genesis.drop_expired_partitions()").fetchone() == (2,)
    assert day(-31) not in partitions(session, "operations")
    assert {day(-30), day(-29)} <= set(partitions(session, "operations"))
    assert session.execute("SELECT count(*) FROM genesis.metric_windows").fetchone() == (1,)
    assert session.execute("SELECT genesis.drop_expired_partitions()").fetchone() == (0,)


def test_retention_is_a_setting_and_maintain_heeds_it(session):
    session.execute("SELECT genesis.add_partition('operations', 'at', (now() AT TIME ZONE 'UTC')::date - 10)")
    session.execute("SELECT genesis.maintain()")
    assert day(-10) in partitions(session, "operations")
    session.execute("UPDATE genesis.settings SET retention_days = 7")
    session.execute("SELECT genesis.maintain()")
    assert day(-10) not in partitions(session, "operations")


@pytest.mark.parametrize("wrong", ["retention_days = 0", "retention_days = NULL", "partitions_ahead = -1"])
def test_senseless_settings_are_refused(session, wrong):
    with pytest.raises(psycopg.IntegrityError):
        session.execute(f"UPDATE genesis.settings SET {wrong}")


def test_days_are_those_of_utc_in_every_session(session):
    session.execute("UPDATE genesis.settings SET partitions_ahead = 6")
    session.execute("SET TimeZone = 'Pacific/Kiritimati'; SET DateStyle = 'SQL, DMY'")  # 14 hours ahead
    session.execute("SELECT genesis.ensure_partitions()")
    noon = datetime.now(UTC).replace(hour=23, minute=59) + timedelta(days=6)
    assert add_window(session, noon) == f"genesis.metric_windows_{day(6)}"


def test_a_locked_table_makes_maintenance_wait_for_the_next_call(session, owner):
    session.execute("UPDATE genesis.settings SET partitions_ahead = 4")
    with psycopg.connect(owner) as other:
        other.execute("LOCK TABLE genesis.operations_default IN SHARE MODE")
        session.execute("SELECT genesis.maintain()")
        assert day(4) not in partitions(session, "operations")
    session.execute("SELECT genesis.maintain()")
    assert day(4) in partitions(session, "operations")


def test_an_insert_under_way_does_not_keep_partitions_from_being_made(session, owner):
    session.execute("UPDATE genesis.settings SET partitions_ahead = 4")
    with psycopg.connect(owner) as other:
        other.execute("INSERT INTO genesis.operations VALUES (now(), now(), 's', 't', 'INSERT', 1, 'r')")
        assert session.execute("SELECT genesis.ensure_partitions()").fetchone() == (len(TABLES),)
