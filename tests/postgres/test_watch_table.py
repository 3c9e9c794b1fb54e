"""Statement-level triggers: what they record, whom they refuse, and that they never fail the user's statement."""

import contextlib
import threading

import psycopg
import pytest
from psycopg import errors
from psycopg.conninfo import make_conninfo

from ml_postgres_optimization.target.postgres.connection import ConnectionSettings, connect
from ml_postgres_optimization.target.postgres.schema import install_schema


@pytest.fixture
def session(owner):
    """The owner's session, with the search_path of a plain one."""
    with connect(ConnectionSettings.from_dsn(owner)) as connection:
        install_schema(connection)
    with psycopg.connect(owner, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA shop; SET search_path = shop")
        connection.execute("CREATE TABLE orders (id integer PRIMARY KEY, amount integer)")
        yield connection


def watch(connection, table="shop.orders"):
    connection.execute("SELECT genesis.watch_table(%s::text::regclass)", [table])


def unwatch(connection, table="shop.orders"):
    connection.execute("SELECT genesis.unwatch_table(%s::text::regclass)", [table])


def operations(connection):
    return connection.execute("SELECT operation, rows FROM genesis.operations ORDER BY at").fetchall()


def notices(connection):
    heard = []
    connection.add_notice_handler(lambda notice: heard.append(notice.message_primary))
    return heard


def test_every_statement_is_recorded_with_its_rows(session):
    watch(session)
    session.execute("INSERT INTO orders SELECT n, 0 FROM generate_series(1, 5) AS n")
    session.execute("UPDATE orders SET amount = 1 WHERE id <= 3")
    session.execute("UPDATE orders SET amount = 2 WHERE id = 99")
    session.execute("DELETE FROM orders WHERE id = 1")
    session.execute("TRUNCATE orders")
    assert operations(session) == [("INSERT", 5), ("UPDATE", 3), ("UPDATE", 0), ("DELETE", 1), ("TRUNCATE", None)]


def test_table_time_and_role_are_recorded(session):
    watch(session)
    session.execute("INSERT INTO orders SELECT 1, 0 FROM pg_sleep(0.02)")
    row = session.execute(
        "SELECT schema_name, table_name, role_name = session_user, extract(epoch FROM at - statement_started_at) "
        "FROM genesis.operations"
    ).fetchone()
    assert row[:3] == ("shop", "orders", True)
    assert 0.02 <= row[3] < 10
    by_hour = session.execute(
        "SELECT table_name, statements, rows, mean_ms FROM genesis.operations_by_hour"
    ).fetchone()
    assert by_hour[:3] == ("shop.orders", 1, 1)
    assert by_hour[3] >= 20


def test_upserts_and_copies_are_recorded(session):
    watch(session)
    with session.cursor().copy("COPY orders FROM STDIN") as copy:
        copy.write("1\t1\n2\t2\n")
    session.execute("INSERT INTO orders VALUES (2, 5), (3, 5) ON CONFLICT (id) DO UPDATE SET amount = 5")
    assert sorted(operations(session)) == [("INSERT", 1), ("INSERT", 2), ("UPDATE", 1)]


def test_what_is_rolled_back_leaves_nothing(session):
    watch(session)
    with pytest.raises(errors.UniqueViolation):
        session.execute("INSERT INTO orders VALUES (1, 1), (1, 1)")
    with contextlib.suppress(psycopg.Rollback), session.transaction():
        session.execute("INSERT INTO orders VALUES (1, 1)")
        raise psycopg.Rollback
    assert operations(session) == []


def test_the_view_shows_what_is_watched(session):
    assert session.execute("SELECT * FROM genesis.watched_tables").fetchall() == []
    watch(session)
    (table, _, events, enabled) = session.execute("SELECT * FROM genesis.watched_tables").fetchone()
    assert (table, enabled) == ("orders", True)
    assert events == ["DELETE", "INSERT", "TRUNCATE", "UPDATE"]


def test_watching_twice_is_a_notice_and_changes_nothing(session):
    watch(session)
    heard = notices(session)
    watch(session)
    assert heard == ["table shop.orders is watched already"]
    session.execute("INSERT INTO orders VALUES (1, 1)")
    assert operations(session) == [("INSERT", 1)]


def test_a_trigger_that_somebody_dropped_is_put_back(session):
    watch(session)
    session.execute("DROP TRIGGER genesis_watch_insert ON orders")
    watch(session)
    session.execute("INSERT INTO orders VALUES (1, 1)")
    assert operations(session) == [("INSERT", 1)]


def test_unwatching_takes_every_trigger_off(session):
    watch(session)
    unwatch(session)
    session.execute("INSERT INTO orders VALUES (1, 1)")
    assert operations(session) == []
    assert session.execute("SELECT * FROM pg_trigger WHERE tgrelid = 'orders'::regclass").fetchall() == []
    heard = notices(session)
    unwatch(session)
    assert heard == ["table shop.orders is not watched"]


def test_a_partitioned_table_is_watched_as_a_whole(session):
    session.execute("CREATE TABLE parted (id integer) PARTITION BY RANGE (id)")
    session.execute("CREATE TABLE part_1 PARTITION OF parted FOR VALUES FROM (0) TO (10)")
    session.execute("CREATE TABLE part_2 PARTITION OF parted FOR VALUES FROM (10) TO (20)")
    watch(session, "shop.parted")
    session.execute("INSERT INTO parted VALUES (1), (11), (12)")
    session.execute("UPDATE parted SET id = 13 WHERE id = 1")
    assert operations(session)[0] == ("INSERT", 3)
    heard = notices(session)
    watch(session, "shop.part_1")
    assert "is a partition" in heard[0]
    unwatch(session, "shop.part_1")
    unwatch(session, "shop.parted")


def test_a_missing_table_is_refused(session):
    with pytest.raises(errors.UndefinedTable, match=r'relation "shop.no_such" does not exist'):
        watch(session, "shop.no_such")
    with pytest.raises(errors.UndefinedTable, match="there is no table 999999"):
        session.execute("SELECT genesis.watch_table(999999::regclass)")
    with pytest.raises(errors.UndefinedTable, match="there is no table NULL"):
        session.execute("SELECT genesis.watch_table(NULL)")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("shop.a_view", "is a view, not a table"),
        ("shop.a_materialized_view", "is a materialized view, not a table"),
        ("shop.a_sequence", "is a sequence, not a table"),
        ("shop.orders_pkey", "is a index, not a table"),
        ("pg_catalog.pg_class", "is a system catalogue"),
        ("information_schema.sql_features", "is a system catalogue"),
        ("genesis.operations", "is a table of genesis-pg itself"),
        ("a_temporary_table", "is a temporary table"),
    ],
)
def test_what_cannot_be_watched_is_refused_with_a_hint(session, table, said):
    session.execute("""
        CREATE VIEW a_view AS SELECT * FROM orders;
        CREATE MATERIALIZED VIEW a_materialized_view AS SELECT * FROM orders;
        CREATE SEQUENCE a_sequence;
        CREATE TEMPORARY TABLE a_temporary_table (id integer);
    """)
    with pytest.raises(errors.WrongObjectType, match=said) as refusal:
        watch(session, table)
    assert refusal.value.diag.message_hint


def test_a_foreign_table_is_refused(session, database):
    with psycopg.connect(database) as superuser:
        superuser.execute("""
            CREATE FOREIGN DATA WRAPPER nowhere;
            CREATE SERVER elsewhere FOREIGN DATA WRAPPER nowhere;
            CREATE FOREIGN TABLE shop.abroad (id integer) SERVER elsewhere;
        """)
    with pytest.raises(errors.WrongObjectType, match="is a foreign table"):
        watch(session, "shop.abroad")


def test_a_table_with_a_foreign_descendant_is_refused(session, database):
    """The server cannot collect the rows of one for a transition table, so the user's statements would fail."""
    with psycopg.connect(database) as superuser:
        superuser.execute("""
            CREATE FOREIGN DATA WRAPPER nowhere;
            CREATE SERVER elsewhere FOREIGN DATA WRAPPER nowhere;
            CREATE TABLE shop.parted (id integer) PARTITION BY RANGE (id);
            CREATE TABLE shop.part PARTITION OF shop.parted FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (id);
            CREATE FOREIGN TABLE shop.abroad PARTITION OF shop.part FOR VALUES FROM (0) TO (5) SERVER elsewhere;
            CREATE TABLE shop.parent (id integer);
            CREATE FOREIGN TABLE shop.child () INHERITS (shop.parent) SERVER elsewhere;
        """)
        for table, foreign in (("shop.parted", "shop.abroad"), ("shop.parent", "shop.child")):
            with (
                pytest.raises(errors.WrongObjectType, match=f"{table} has the foreign table {foreign}") as refusal,
                superuser.transaction(),
            ):
                watch(superuser, table)
            assert refusal.value.diag.message_hint
            superuser.execute(f"DELETE FROM ONLY {table}")


def test_an_owner_who_may_only_use_our_schema_watches_his_table(session, database, owner):
    role = f"seller_{owner.split('owner_of_test_')[1][:12]}"
    with psycopg.connect(database, autocommit=True) as superuser:
        superuser.execute(f"CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA genesis, shop TO {role}")
        superuser.execute(f"CREATE TABLE shop.sales (id integer); ALTER TABLE shop.sales OWNER TO {role}")
        with psycopg.connect(make_conninfo(database, user=role), autocommit=True) as seller:
            heard = notices(seller)
            watch(seller, "shop.sales")
            watch(seller, "shop.sales")
            assert heard == ["table shop.sales is watched already"]
            seller.execute("INSERT INTO shop.sales VALUES (1)")
            unwatch(seller, "shop.sales")
        assert operations(session) == [("INSERT", 1)]
        superuser.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_somebody_elses_table_is_refused_with_the_name_of_its_owner(session, database):
    with psycopg.connect(database) as superuser:
        superuser.execute("CREATE TABLE shop.vault (id integer)")
        (name,) = superuser.execute("SELECT current_user").fetchone()
    with pytest.raises(errors.InsufficientPrivilege, match=f"belongs to role {name}") as refusal:
        watch(session, "shop.vault")
    assert "GRANT" in refusal.value.diag.message_hint


def test_a_busy_table_is_not_waited_for(session, owner):
    with psycopg.connect(owner) as other:
        other.execute("INSERT INTO shop.orders VALUES (1, 1)")
        with pytest.raises(errors.LockNotAvailable, match="is locked by another session"):
            watch(session)
    watch(session)
    with psycopg.connect(owner) as other:
        other.execute("SELECT * FROM shop.orders")
        with pytest.raises(errors.LockNotAvailable, match="is locked by another session"):
            unwatch(session)


def test_a_role_without_any_right_on_our_schema_writes_on(session, database, owner):
    watch(session)
    role = f"clerk_{owner.split('owner_of_test_')[1][:12]}"
    with psycopg.connect(database, autocommit=True) as superuser:
        superuser.execute(f"CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA shop TO {role}")
        superuser.execute(f"GRANT INSERT ON shop.orders TO {role}")
        with psycopg.connect(make_conninfo(database, user=role), autocommit=True) as clerk:
            clerk.execute("INSERT INTO shop.orders VALUES (1, 1)")
            with pytest.raises(errors.InsufficientPrivilege):
                clerk.execute("SELECT * FROM genesis.operations")
        row = superuser.execute("SELECT role_name FROM genesis.operations").fetchone()
        superuser.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    assert row == (role,)


BREAKAGES = {
    "the table is gone": "DROP TABLE genesis.operations CASCADE",
    "the live table is gone": "DROP TABLE genesis.operations_live",
    "nothing fits into it": "ALTER TABLE genesis.operations ADD CONSTRAINT full_up CHECK (false) NOT VALID",
    "a column is gone": "ALTER TABLE genesis.operations DROP COLUMN rows CASCADE",
    "the owner has no right to it": "REVOKE ALL ON genesis.operations, genesis.operations_live FROM CURRENT_USER",
    "its schema has another name": "ALTER SCHEMA genesis RENAME TO exodus",
}


@pytest.mark.parametrize("breakage", BREAKAGES.values(), ids=BREAKAGES)
def test_no_failure_inside_fails_the_users_statement(session, owner, breakage):
    watch(session)
    session.execute("INSERT INTO orders VALUES (1, 1)")  # this session has the trigger's plan cached
    session.execute(breakage)
    session.execute("INSERT INTO orders VALUES (2, 2)")
    with psycopg.connect(owner, autocommit=True) as fresh:
        for statement in (
            "INSERT INTO shop.orders VALUES (3, 3)",
            "UPDATE shop.orders SET amount = 0",
            "DELETE FROM shop.orders WHERE id = 1",
        ):
            fresh.execute(statement)
        assert fresh.execute("SELECT array_agg(id ORDER BY id) FROM shop.orders").fetchone() == ([2, 3],)
        fresh.execute("TRUNCATE shop.orders")
        assert fresh.execute("SELECT count(*) FROM shop.orders").fetchone() == (0,)


def test_a_failure_inside_leaves_the_users_transaction_whole(session):
    watch(session)
    session.execute("DROP TABLE genesis.operations CASCADE")
    with session.transaction():
        session.execute("INSERT INTO orders VALUES (1, 1)")
        session.execute("INSERT INTO orders VALUES (2, 2)")
    assert session.execute("SELECT count(*) FROM orders").fetchone() == (2,)


def test_a_lock_on_our_table_holds_the_user_up_no_longer_than_his_lock_timeout(session, owner):
    watch(session)
    session.execute("SET lock_timeout = '20ms'")
    with psycopg.connect(owner) as other:
        other.execute("LOCK TABLE genesis.operations IN ACCESS EXCLUSIVE MODE")
        session.execute("INSERT INTO orders VALUES (1, 1)")
    assert operations(session) == []
    assert session.execute("SELECT count(*) FROM orders").fetchone() == (1,)


def test_a_full_disk_in_our_tablespace_fails_nobody(session, database):
    """No disk is filled for this: the same error is raised where our row is written."""
    watch(session)
    session.execute("""
        CREATE FUNCTION shop.no_space() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN RAISE 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END$$;
        CREATE TRIGGER no_space BEFORE INSERT ON genesis.operations_live
            FOR EACH ROW EXECUTE FUNCTION shop.no_space();
    """)
    session.execute("INSERT INTO orders VALUES (1, 1)")
    assert session.execute("SELECT count(*) FROM orders").fetchone() == (1,)


def test_dropping_the_schema_takes_the_triggers_along(session):
    watch(session)
    session.execute("SET client_min_messages = warning; DROP SCHEMA genesis CASCADE")
    session.execute("INSERT INTO orders VALUES (1, 1)")


def test_several_sessions_write_at_once(session, owner):
    watch(session)

    def write(first):
        with psycopg.connect(owner, autocommit=True) as other:
            for number in range(first, first + 50):
                other.execute("INSERT INTO shop.orders VALUES (%s, 0)", [number])

    threads = [threading.Thread(target=write, args=(1000 * index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert operations(session) == [("INSERT", 1)] * 200
