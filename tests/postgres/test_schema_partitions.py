"""Partitions of a day: made ahead, dropped by retention, and never in the way of a row."""

import threading
import time
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from ml_postgres_optimization.target.postgres.connection import ConnectionSettings, connect
from ml_postgres_optimization.target.postgres.schema import install_schema

TABLES = ("metric_windows", "operation_windows", "predictions")


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
    assert day(5) in partitions(session, "predictions")


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
        "INSERT INTO genesis.predictions SELECT 'k', 'm', NULL, now(), now(), n, n, n, 0.9 "
        "FROM generate_series(1, 3) AS n"
    )
    assert session.execute("SELECT genesis.ensure_partitions()").fetchone() == (len(TABLES),)
    for table, rows in (("metric_windows", 1), ("predictions", 3)):
        counts = session.execute(
            f"SELECT (SELECT count(*) FROM genesis.{table}_{day(0)}), (SELECT count(*) FROM genesis.{table}_default)"
        ).fetchone()
        assert counts == (rows, 0)


def test_a_lost_default_partition_is_made_again(session):
    session.execute(f"DROP TABLE genesis.predictions_default, genesis.predictions_{day(0)}")
    session.execute("SELECT genesis.maintain()")
    assert {"default", day(0)} <= set(partitions(session, "predictions"))


def test_retention_drops_whole_days_and_keeps_the_rest(session):
    for offset in (-31, -30, -29):
        for table, key in (("predictions", "made_at"), ("metric_windows", "started_at")):
            session.execute(
                "SELECT genesis.add_partition(%s::text::name, %s::text::name, (now() AT TIME ZONE 'UTC')::date + %s)",
                [table, key, offset],
            )
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    session.execute("DROP TABLE genesis.metric_windows_" + day(-30))
    add_window(session, midnight - timedelta(days=30))  # in the default partition, and to be kept
    add_window(session, midnight - timedelta(days=30, microseconds=1))  # there too, and expired
    assert session.execute("SELECT genesis.drop_expired_partitions()").fetchone() == (2,)
    assert day(-31) not in partitions(session, "predictions")
    assert {day(-30), day(-29)} <= set(partitions(session, "predictions"))
    assert session.execute("SELECT count(*) FROM genesis.metric_windows").fetchone() == (1,)
    assert session.execute("SELECT genesis.drop_expired_partitions()").fetchone() == (0,)


def test_retention_is_a_setting_and_maintain_heeds_it(session):
    session.execute("SELECT genesis.add_partition('predictions', 'made_at', (now() AT TIME ZONE 'UTC')::date - 10)")
    session.execute("SELECT genesis.maintain()")
    assert day(-10) in partitions(session, "predictions")
    session.execute("UPDATE genesis.settings SET retention_days = 7")
    session.execute("SELECT genesis.maintain()")
    assert day(-10) not in partitions(session, "predictions")


def add_operation(session, days_ago=0):
    session.execute(
        "INSERT INTO genesis.operations_live "
        "VALUES (now() - make_interval(days => %s), now(), 's', 't', 'INSERT', 1, 'r')",
        [days_ago],
    )


def test_the_live_operations_get_the_name_of_their_day_when_it_is_over(session):
    add_operation(session)
    session.execute("SELECT genesis.maintain()")
    assert partitions(session, "operations") == ["live"]
    session.execute("UPDATE genesis.operations_live SET at = at - interval '1 day'")
    session.execute("SELECT genesis.maintain()")
    assert partitions(session, "operations") == ["live", day(-1)]
    add_operation(session)
    counts = "SELECT (SELECT count(*) FROM genesis.operations), (SELECT count(*) FROM ONLY genesis.operations_live)"
    assert session.execute(counts).fetchone() == (2, 1)
    session.execute("SELECT genesis.maintain()")
    assert partitions(session, "operations") == ["live", day(-1)]


def test_old_operations_are_dropped_by_retention(session):
    for ago in (31, 30):
        session.execute(f"CREATE TABLE genesis.operations_{day(-ago)} () INHERITS (genesis.operations)")
    session.execute("SELECT genesis.maintain()")
    assert partitions(session, "operations") == ["live", day(-30)]


def test_a_lost_live_table_is_made_again(session):
    session.execute("DROP TABLE genesis.operations_live")
    session.execute("SELECT genesis.maintain()")
    assert partitions(session, "operations") == ["live"]


def test_a_name_that_is_taken_leaves_the_live_table_as_it_is(session):
    session.execute(f"CREATE TABLE genesis.operations_{day(-1)} () INHERITS (genesis.operations)")
    add_operation(session, days_ago=1)
    session.execute("SELECT genesis.maintain()")
    assert partitions(session, "operations") == ["live", day(-1)]


def test_statements_lose_nothing_while_the_live_table_is_exchanged(session, owner):
    session.execute("CREATE SCHEMA shop; CREATE TABLE shop.orders (id integer)", prepare=False)
    session.execute("SELECT genesis.watch_table('shop.orders')")
    add_operation(session, days_ago=1)
    exchanged = threading.Event()

    def write():
        count = 0
        with psycopg.connect(owner, autocommit=True) as other:
            while not exchanged.is_set() or count < 50:
                other.execute("INSERT INTO shop.orders VALUES (1)")
                count += 1
        written.append(count)

    written: list[int] = []
    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(100):
        session.execute("SELECT genesis.maintain()")
        if day(-1) in partitions(session, "operations"):
            break
    exchanged.set()
    for thread in threads:
        thread.join()
    assert partitions(session, "operations") == ["live", day(-1)]
    assert session.execute("SELECT count(*) - 1 FROM genesis.operations").fetchone() == (sum(written),)


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


def test_a_locked_table_waits_for_the_next_call_and_the_others_do_not(session, owner):
    add_operation(session, days_ago=1)
    session.execute("UPDATE genesis.settings SET partitions_ahead = 4")
    with psycopg.connect(owner) as other:
        other.execute("LOCK TABLE genesis.predictions_default IN SHARE MODE")
        session.execute("SELECT genesis.maintain()")
        assert day(4) not in partitions(session, "predictions")
        assert partitions(session, "operations") == ["live", day(-1)]
    session.execute("SELECT genesis.maintain()")
    assert day(4) in partitions(session, "predictions")


def maintain(session):
    return session.execute("SELECT genesis.maintain()").fetchone()[0]


def test_maintenance_says_whether_all_of_it_was_done(session, owner):
    assert maintain(session) is True
    session.execute("UPDATE genesis.settings SET partitions_ahead = 4")
    with psycopg.connect(owner) as other:
        other.execute("LOCK TABLE genesis.predictions_default IN SHARE MODE")
        assert maintain(session) is False
    with psycopg.connect(owner) as other:
        other.execute("SELECT pg_advisory_xact_lock(hashtextextended('genesis-pg maintenance', 0))")
        assert maintain(session) is False
    assert maintain(session) is True


def test_setup_does_not_wait_for_who_reads(session, owner):
    session.execute("UPDATE genesis.settings SET partitions_ahead = 4")
    with psycopg.connect(owner) as other:
        other.execute("SELECT * FROM genesis.metric_windows")
        assert install_schema(session).applied == ()
        assert day(4) not in partitions(session, "metric_windows")
    install_schema(session)
    assert day(4) in partitions(session, "metric_windows")


def test_setup_leaves_maintenance_to_who_is_at_it(session, owner):
    session.execute("UPDATE genesis.settings SET partitions_ahead = 4")
    with psycopg.connect(owner) as other:
        assert maintain(other) is True
        assert install_schema(session).applied == ()
        assert day(4) not in partitions(session, "predictions")  # the other one has not committed yet
    assert day(4) in partitions(session, "predictions")


def test_a_day_that_a_time_zone_left_out_is_a_day_of_ours(session):
    session.execute("SET TimeZone = 'Pacific/Apia'")  # went from the 29th to the 31st in December 2011
    session.execute("SELECT genesis.add_partition('predictions', 'made_at', '2011-12-30')")
    assert "p20111230" in partitions(session, "predictions")


def test_retention_drops_whatever_way_the_session_reads_strings(session):
    session.execute("SET standard_conforming_strings = off")
    session.execute("SELECT genesis.add_partition('predictions', 'made_at', (now() AT TIME ZONE 'UTC')::date - 40)")
    assert session.execute("SELECT genesis.drop_expired_partitions()").fetchone() == (1,)


def test_an_insert_under_way_does_not_keep_partitions_from_being_made(session, owner):
    session.execute("UPDATE genesis.settings SET partitions_ahead = 4")
    with psycopg.connect(owner) as other:
        add_window(other, datetime.now(UTC))
        assert session.execute("SELECT genesis.ensure_partitions()").fetchone() == (len(TABLES),)


def test_a_statement_under_way_is_not_waited_for(session, owner):
    add_operation(session, days_ago=1)
    with psycopg.connect(owner) as other:
        add_operation(other)
        begun = time.monotonic()
        session.execute("SELECT genesis.maintain()")
        assert time.monotonic() - begun < 1
        assert partitions(session, "operations") == ["live"]
    session.execute("SELECT genesis.maintain()")
    assert partitions(session, "operations") == ["live", day(-1)]
