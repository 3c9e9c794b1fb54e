"""The statistics collector on a real server: as superuser, monitor and plain role, with and without extension."""

import itertools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from ml_postgres_optimization.target.host import HostProbe
from ml_postgres_optimization.target.postgres.capabilities import read_capabilities
from ml_postgres_optimization.target.postgres.collector import StatisticsCollector
from ml_postgres_optimization.target.postgres.collector.own_statements import OwnStatements
from ml_postgres_optimization.target.postgres.collector.statistics_collector import ONE_ROW_SOURCES
from ml_postgres_optimization.telemetry import Snapshot, StatementCounters, VirtualClock, Window, between

NEEDS_TIMING = {"database.block_read_seconds_total", "wal.write_seconds_total", "io.client_read_seconds_total"}


@contextmanager
def collector(dsn: str, host: HostProbe | None = None) -> Iterator[StatisticsCollector]:
    """Observe as genesis-pg does: with its application name, in autocommit mode."""
    with psycopg.connect(dsn, autocommit=True, application_name="genesis-pg: test") as connection:
        yield StatisticsCollector(connection, read_capabilities(connection), host)


def eventually(condition: Callable[[], object]) -> None:
    """Wait until a session's counts have arrived: at its end, on 14 half a second later."""
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def execute(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def growth(before: Snapshot, after: Snapshot) -> dict[str, float]:
    return {name: value - before.values.get(name, 0.0) for name, value in after.values.items()}


def observe(windows: list[Window], before: Snapshot, observer: StatisticsCollector) -> Window:
    windows.append(between(before, observer.snapshot(), configuration_id="stock"))
    return windows[-1]


@pytest.fixture
def role(server, database) -> Iterator[str]:
    """The DSN of a plain role that owns nothing."""
    name = f"plain_{uuid4().hex[:12]}"
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
        yield make_conninfo(database, user=name)
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@pytest.fixture
def monitor(server, role) -> str:
    """The DSN of a role that is a member of pg_monitor, and of nothing else."""
    execute(server.dsn, f"GRANT pg_monitor TO {psycopg.conninfo.conninfo_to_dict(role)['user']}")
    return role


@pytest.fixture
def with_statements(server, database, binaries) -> str:
    """The DSN of a database that has pg_stat_statements, in a schema with an odd name."""
    if not binaries.has_library("pg_stat_statements"):
        pytest.skip("these binaries have no contrib modules")
    execute(
        database, 'CREATE SCHEMA "an odd ""schema"', 'CREATE EXTENSION pg_stat_statements SCHEMA "an odd ""schema"'
    )
    return database


class TestSources:
    def test_a_superuser_sees_every_source(self, database):
        with collector(database) as observer:
            snapshot = observer.snapshot()
            assert observer.memory() is None
        sources = {name.split(".")[0] for name in snapshot.values}
        assert sources | set(snapshot.unseen) >= set(ONE_ROW_SOURCES)
        assert sources >= set(ONE_ROW_SOURCES) - {"io"}
        assert snapshot.unseen["host"] == "the server does not run where this program does"

    @pytest.mark.pg(">= 16")
    def test_io_is_seen_from_16_on(self, database):
        with collector(database) as observer:
            assert observer.snapshot().values["io.client_hit_blocks_total"] > 0

    @pytest.mark.pg("< 16")
    def test_before_16_io_is_unseen_and_the_reason_says_since_when(self, database):
        with collector(database) as observer:
            assert "16 and later" in observer.snapshot().unseen["io"]

    def test_a_member_of_pg_monitor_sees_as_much_as_a_superuser(self, database, monitor):
        with collector(database) as superuser, collector(monitor) as observer:
            all_there_is, seen = superuser.snapshot(), observer.snapshot()
        assert set(seen.values) == set(all_there_is.values)
        assert set(seen.unseen) == set(all_there_is.unseen)

    def test_a_plain_role_sees_the_numbers_and_is_told_what_it_does_not_see(self, database, role):
        with collector(database) as superuser, collector(role) as observer:
            all_there_is, seen = superuser.snapshot(), observer.snapshot()
        assert set(seen.values) == set(all_there_is.values)
        user = psycopg.conninfo.conninfo_to_dict(role)["user"]
        assert seen.unseen["activity"].endswith(f'GRANT pg_monitor TO "{user}"')
        assert "statements" in seen.unseen

    def test_a_time_that_is_not_measured_is_unseen_rather_than_zero(self, database):
        with collector(database) as observer:
            snapshot = observer.snapshot()
            assert snapshot.values.keys() & NEEDS_TIMING == set()
            assert {"database.block_read_seconds_total", "wal.write_seconds_total"} <= set(snapshot.unseen)

    def test_a_time_that_is_measured_is_seen(self, database):
        options = "-c track_io_timing=on -c track_wal_io_timing=on"
        with collector(make_conninfo(database, options=options)) as observer:
            snapshot = observer.snapshot()
        assert not [name for name in snapshot.unseen if name.endswith("_seconds_total")]
        assert {"database.block_read_seconds_total", "wal.write_seconds_total"} <= set(snapshot.values)

    def test_the_time_is_that_of_the_clock(self, database):
        clock = VirtualClock()
        clock.sleep(42)
        with psycopg.connect(database, autocommit=True) as connection:
            observer = StatisticsCollector(connection, read_capabilities(connection), clock=clock)
            snapshot = observer.snapshot()
        assert (snapshot.taken_at, snapshot.monotonic_seconds) == (clock.now(), 42.0)

    def test_the_host_is_read_where_it_is_ours(self, database, tmp_path):
        with collector(database, HostProbe(sys=tmp_path)) as observer:
            snapshot = observer.snapshot()
        assert snapshot.values["host.memory_total_bytes"] > 0
        assert "host.disk" in snapshot.unseen


class TestGrowth:
    def test_no_counter_goes_down(self, database):
        with collector(database) as observer:
            before = observer.snapshot()
            execute(database, "CREATE TABLE t AS SELECT 1 AS a", "VACUUM t", "DROP TABLE t", "CHECKPOINT")
            after = observer.snapshot()
        fallen = {name for name, delta in growth(before, after).items() if name.endswith("_total") and delta < 0}
        assert not fallen

    def test_transactions_are_counted(self, database):
        with collector(database) as observer:
            before = observer.snapshot()
            execute(database, *["SELECT 1"] * 100, *["BEGIN", "SELECT 2", "ROLLBACK"] * 10)
            eventually(lambda: growth(before, observer.snapshot())["database.commits_total"] >= 100)
            eventually(lambda: growth(before, observer.snapshot())["database.rollbacks_total"] == 10)
            assert growth(before, observer.snapshot())["cluster.commits_total"] >= 100

    def test_rows_scans_and_log_are_counted(self, database):
        execute(database, "CREATE TABLE t (a int PRIMARY KEY, b text)")
        with collector(database) as observer:
            before = observer.snapshot()
            execute(
                database,
                "INSERT INTO t SELECT i, repeat('x', 100) FROM generate_series(1, 1000) AS i",
                "UPDATE t SET b = 'y' WHERE a <= 50",
                "DELETE FROM t WHERE a > 990",
                "SET enable_seqscan = off",
                "SELECT b FROM t WHERE a = 7",
            )
            eventually(lambda: growth(before, observer.snapshot())["tables.deleted_tuples_total"] == 10)
            execute(database, "ANALYZE t")
            eventually(lambda: growth(before, observer.snapshot())["tables.analyzes_total"] == 1)
            grown = growth(before, observer.snapshot())
        assert grown["tables.inserted_tuples_total"] == 1000
        assert grown["tables.updated_tuples_total"] == 50
        assert grown["tables.index_scans_total"] >= 1
        assert grown["tables.live_tuples"] == 990
        assert grown["tables.dead_tuples"] > 0
        assert grown["tables.estimated_bytes"] >= 1000 * 100
        assert grown["wal.generated_bytes_total"] > 1000 * 100
        assert grown["cluster.transaction_ids_total"] >= 3

    def test_our_own_schema_is_left_out_of_the_tables(self, database):
        with collector(database) as observer:
            before = observer.snapshot()
            execute(database, "CREATE SCHEMA genesis", "CREATE TABLE genesis.t AS SELECT generate_series(1, 10)")
            execute(database, "CREATE TABLE t AS SELECT generate_series(1, 5)")
            eventually(lambda: growth(before, observer.snapshot())["tables.inserted_tuples_total"] == 5)
            assert growth(before, observer.snapshot())["tables.count"] == 1

    def test_what_does_not_fit_into_memory_is_counted(self, database):
        with collector(database) as observer:
            before = observer.snapshot()
            execute(
                database,
                "SET work_mem = '64kB'",
                "SELECT count(*) FROM (SELECT i FROM generate_series(1, 50000) AS i ORDER BY i DESC OFFSET 1) AS s",
            )
            eventually(lambda: growth(before, observer.snapshot())["database.temp_files_total"] >= 1)
            assert growth(before, observer.snapshot())["database.temp_bytes_total"] > 64 * 1024

    def test_a_checkpoint_that_was_asked_for_is_counted(self, database):
        with collector(database) as observer:
            before = observer.snapshot()
            execute(database, "CREATE TABLE t AS SELECT generate_series(1, 1000)", "CHECKPOINT")
            eventually(lambda: growth(before, observer.snapshot())["checkpointer.requested_checkpoints_total"] >= 1)
            eventually(lambda: growth(before, observer.snapshot())["checkpointer.written_blocks_total"] >= 1)

    def test_a_slot_holds_log_back(self, own_server):
        execute(own_server.dsn, "SELECT pg_create_physical_replication_slot('held', true)")
        execute(own_server.dsn, "CREATE TABLE t AS SELECT generate_series(1, 1000)")
        with collector(own_server.dsn) as observer:
            values = observer.snapshot().values
        assert values["slots.count"] == 1
        assert values["slots.inactive"] == 1
        assert values["slots.retained_wal_bytes"] > 1000 * 20

    def test_a_standby_is_observed_like_any_server(self, own_server):
        (own_server.data_directory / "standby.signal").touch(mode=0o644)
        own_server.restart()
        execute(own_server.dsn, "SELECT pg_create_physical_replication_slot('held', true)")
        with collector(own_server.dsn) as observer:
            snapshot = observer.snapshot()
            assert observer.activity().blocked_sessions == 0
        assert not set(snapshot.unseen) & (set(ONE_ROW_SOURCES) - {"io"})
        assert snapshot.values["slots.count"] == 1
        assert snapshot.values["cluster.transaction_ids_total"] > 0

    def test_a_reset_by_somebody_else_is_seen_as_one(self, database):
        with collector(database) as observer:
            execute(database, *["SELECT 1"] * 100)
            eventually(lambda: observer.snapshot().values["database.commits_total"] >= 100)
            before = observer.snapshot()
            execute(database, "SELECT pg_stat_reset()")
            windows = []
            eventually(lambda: "database" in observe(windows, before, observer).unseen)
        assert "reset" in windows[-1].unseen["database"]
        assert not [name for name in windows[-1].rates if name.startswith("database.")]
        assert "wal.records_per_second" in windows[-1].rates


class TestActivity:
    def test_who_waits_for_whom(self, database):
        with (
            collector(database) as observer,
            psycopg.connect(database) as holder,
            closing(psycopg.connect(database, autocommit=True)) as waiter,
        ):
            before = observer.activity()
            holder.execute("CREATE TABLE t (a int)")
            holder.commit()
            holder.execute("LOCK TABLE t")
            waiter.pgconn.send_query(b"SELECT * FROM t")
            eventually(lambda: observer.activity().blocked_sessions == 1)
            activity, snapshot = observer.activity(), observer.snapshot()
            holder.rollback()
        assert before.blocked_sessions == 0
        assert activity.active_sessions_by_wait == {"Lock": 1}
        assert activity.connections == before.connections
        assert activity.idle_in_transaction_sessions == 1
        assert activity.longest_transaction_seconds > 0
        assert snapshot.values["locks.waiting"] == 1
        assert snapshot.values["locks.oldest_wait_seconds"] > 0

    def test_a_session_that_computes_is_on_the_cpu(self, database):
        with collector(database) as observer, closing(psycopg.connect(database, autocommit=True)) as worker:
            worker.pgconn.send_query(b"SELECT count(*) FROM generate_series(1, 100000000) AS i WHERE i % 7 = 0")
            eventually(lambda: observer.activity().active_sessions_by_wait.get("CPU") == 1)
            worker.cancel()

    @pytest.mark.parametrize(
        ("application_name", "counted"),
        [("genesis-pg", 0), ("genesis-pg: settings", 0), ("genesis-load", 1), ("", 1), ("psql", 1)],
    )
    def test_our_own_sessions_are_left_out_and_our_load_is_not(self, database, application_name, counted):
        with collector(database) as observer:
            before = observer.activity().connections
            with psycopg.connect(database, application_name=application_name):
                assert observer.activity().connections == before + counted

    def test_a_plain_role_counts_the_sessions_of_others_without_seeing_what_they_do(self, database, role):
        with collector(database) as superuser, collector(role) as observer, psycopg.connect(database) as other:
            other.execute("SELECT 1")
            assert observer.activity().connections == superuser.activity().connections
            assert superuser.activity().idle_in_transaction_sessions == 1
            assert observer.activity().idle_in_transaction_sessions == 0


class TestStatements:
    def key_of(self, observer, text):
        texts = observer.statement_texts(observer.snapshot().statements)
        (key,) = [key for key, found in texts.items() if found.replace(" ", "") == text.replace(" ", "")]
        return key

    def test_calls_rows_and_time_of_a_query_are_counted(self, with_statements):
        with collector(with_statements) as observer:
            execute(with_statements, "SELECT generate_series(1, 3) /* mine */")
            key = self.key_of(observer, "SELECT generate_series($1, $2) /* mine */")
            before = observer.snapshot()
            execute(with_statements, *["SELECT generate_series(1, 3) /* mine */"] * 20)
            after = observer.snapshot()
        growth = between(before, after, configuration_id="stock").statements[key]
        assert growth.calls_total == 20
        assert growth.rows_total == 60
        assert 0 < growth.execution_seconds_total < 1
        assert after.values["statements_info.evictions_total"] >= 0
        assert "statements" not in after.unseen

    def test_only_the_texts_asked_for_are_given(self, with_statements):
        with collector(with_statements) as observer:
            keys = list(observer.snapshot().statements)
            assert set(observer.statement_texts(keys[:2])) == set(keys[:2])
            assert observer.statement_texts([]) == {}
            assert observer.statement_texts([(1, 2, 3), (keys[0][0], 1, 1)]) == {}

    def test_what_we_ask_ourselves_is_no_work_of_the_server(self, with_statements):
        with collector(with_statements) as observer:
            snapshots = [observer.snapshot()]
            for _ in range(3):
                observer.activity()
                execute(with_statements, "ALTER SYSTEM RESET work_mem", "SELECT /* genesis-pg */ pg_reload_conf()")
                snapshots.append(observer.snapshot())
        with psycopg.connect(with_statements) as connection:
            (ours,) = connection.execute(
                'SELECT count(*) FROM "an odd ""schema".pg_stat_statements JOIN pg_database AS d ON d.oid = dbid '
                "WHERE datname = current_database() AND query LIKE '%/* genesis-pg */%'"
            ).fetchone()
        assert ours >= len(ONE_ROW_SOURCES) - 1, "the server counts them, and keeps our mark"
        for before, after in itertools.pairwise(snapshots):
            assert not between(before, after, configuration_id="stock").statements

    @pytest.mark.parametrize(
        ("text", "is_ours"),
        [
            ("-- Why.\nSELECT /* genesis-pg */ count(*) FROM pg_catalog.pg_locks", True),
            ("INSERT INTO genesis.windows (started_at) VALUES ($1)", True),
            ("ALTER SYSTEM SET work_mem = $1", True),
            ("SELECT pg_reload_conf()", True),
            ("SELECT balance FROM genesis_load.accounts WHERE id = $1", False),
            ("SELECT * FROM books WHERE title = 'ALTER SYSTEM'", False),
            (None, False),
        ],
    )
    def test_ours_are_known_by_their_text(self, text, is_ours):
        key, counters = (1, 2, 3), StatementCounters(1, 1.0, 1, 0, 0, 0, 0.0)
        own = OwnStatements(lambda keys: {key: text for key in keys if text})
        assert own.left_out_of({key: counters}) == ({} if is_ours else {key: counters})

    def test_the_text_of_a_query_is_read_once(self, with_statements, monkeypatch):
        asked, read = [], StatisticsCollector.statement_texts
        monkeypatch.setattr(
            StatisticsCollector, "statement_texts", lambda self, keys: asked.append(set(keys)) or read(self, keys)
        )
        with collector(with_statements) as observer:
            for _ in range(5):
                observer.snapshot()
            settled = len(asked)
            observer.snapshot()
            execute(with_statements, "SELECT 1 AS something_new")
            observer.snapshot()
            observer.snapshot()
        assert settled <= 3, "the query for the texts shows up one snapshot later, and then no more"
        assert [len(keys) for keys in asked[settled:]] == [1]
        assert all(not first & second for first, second in itertools.combinations(asked, 2))

    def test_a_plain_role_does_not_see_the_queries_of_others(self, with_statements, role):
        execute(with_statements, 'GRANT USAGE ON SCHEMA "an odd ""schema" TO PUBLIC', "SELECT 'secret' /* theirs */")
        with collector(with_statements) as superuser, collector(role) as observer:
            theirs = self.key_of(superuser, "SELECT $1 /* theirs */")
            snapshot = observer.snapshot()
            assert theirs not in snapshot.statements
            assert observer.statement_texts([theirs]) == {}
        assert "GRANT pg_monitor" in snapshot.unseen["statements"]

    def test_a_schema_that_may_not_be_used_is_told_once(self, with_statements, role):
        with collector(role) as observer:
            first, second = observer.snapshot(), observer.snapshot()
        assert first.unseen["statements"] == second.unseen["statements"]
        assert "42501" in first.unseen["statements"]

    def test_without_the_extension_the_way_to_get_it_is_told(self, database, binaries):
        with collector(database) as observer:
            snapshot = observer.snapshot()
            assert observer.statement_texts([(1, 2, 3)]) == {}
        assert snapshot.statements == {}
        assert "CREATE EXTENSION pg_stat_statements" in snapshot.unseen["statements"]
        assert ("contrib" in snapshot.unseen["statements"]) is not binaries.has_library("pg_stat_statements")

    def test_an_extension_that_was_never_updated_is_not_asked(self, database, binaries):
        if not binaries.has_library("pg_stat_statements"):
            pytest.skip("these binaries have no contrib modules")
        execute(database, "CREATE EXTENSION pg_stat_statements VERSION '1.8'")
        with collector(database) as observer:
            snapshot = observer.snapshot()
        assert snapshot.statements == {}
        assert "ALTER EXTENSION pg_stat_statements UPDATE" in snapshot.unseen["statements"]

    def test_an_extension_that_is_not_loaded_is_switched_off(self, own_server, binaries):
        if not binaries.has_library("pg_stat_statements"):
            pytest.skip("these binaries have no contrib modules")
        execute(own_server.dsn, "CREATE EXTENSION pg_stat_statements")
        own_server.restart(settings={"shared_preload_libraries": ""})
        with collector(own_server.dsn) as observer:
            first, second = observer.snapshot(), observer.snapshot()
        assert "shared_preload_libraries" in first.unseen["statements"]
        assert second.unseen["statements"] == first.unseen["statements"]
        assert "database.commits_total" in second.values


class TestRefusals:
    def test_what_is_refused_is_switched_off_and_the_rest_goes_on(self, database, role):
        execute(database, "REVOKE SELECT ON pg_catalog.pg_stat_wal FROM PUBLIC")
        with collector(role) as observer:
            first = observer.snapshot()
            execute(database, "GRANT SELECT ON pg_catalog.pg_stat_wal TO PUBLIC")
            second = observer.snapshot()
        assert first.unseen["wal"] == "permission denied for view pg_stat_wal (SQLSTATE 42501)"
        assert second.unseen["wal"] == first.unseen["wal"]
        assert not [name for name in second.values if name.startswith("wal.")]
        assert "slots.count" in second.values

    def test_what_comes_too_late_is_asked_again(self, database):
        with (
            collector(make_conninfo(database, options="-c lock_timeout=20ms")) as observer,
            psycopg.connect(database) as blocker,
        ):
            blocker.execute("LOCK TABLE pg_catalog.pg_replication_slots")
            blocked = observer.snapshot()
            blocker.rollback()
            free = observer.snapshot()
        assert "55P03" in blocked.unseen["slots"]
        assert "slots.count" not in blocked.values
        assert "slots.count" in free.values
        assert "slots" not in free.unseen

    def test_a_lost_connection_is_not_taken_for_a_refusal(self, database):
        with collector(database) as observer:
            observer.snapshot()
            execute(
                database,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'genesis-pg: test'",
            )
            with pytest.raises(psycopg.OperationalError):
                observer.snapshot()
            with pytest.raises(psycopg.OperationalError):
                observer.activity()


def test_a_snapshot_becomes_json(database):
    """What the store keeps must not hold a Decimal."""
    with collector(database) as observer:
        snapshot = observer.snapshot()
    assert json.loads(json.dumps(dict(snapshot.values))) == dict(snapshot.values)
