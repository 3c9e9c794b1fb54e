"""The load generator on a real server: every operation is accounted for, and what is changed takes effect."""

import asyncio
import itertools
import threading
import time

import numpy as np
import psutil
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from ml_postgres_optimization.errors import SchemaMissing, ServerUnreachable, UsageError
from ml_postgres_optimization.target.embedded import EmbeddedServer
from ml_postgres_optimization.telemetry import MemoryStore
from ml_postgres_optimization.workload import (
    SOAK_MIX,
    LoadArm,
    LoadGenerator,
    LoadPlan,
    OperationKind,
    OperationMix,
    create_tables,
    measure_capacity,
)
from ml_postgres_optimization.workload.arrival import Stream, ZipfKeys
from ml_postgres_optimization.workload.faults import hold_table_lock
from ml_postgres_optimization.workload.generator import crew
from ml_postgres_optimization.workload.process.session import Session, preparer, session_defaults

SCALE = 0.005
READS = OperationMix({OperationKind.READ: 1})
WRITES = OperationMix({OperationKind.WRITE: 1})
EVERY_KIND = OperationMix(dict.fromkeys(OperationKind, 1))


@pytest.fixture
def loaded(database):
    create_tables(database, SCALE)
    return database


def one(dsn, query, *parameters):
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(query, parameters).fetchone()[0]


def until(condition, seconds=20.0):
    """Wait until `condition` holds; fail when it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def finished(load, operations):
    """Return whether so many operations have been reported."""
    return lambda: load.counters.succeeded_total + load.counters.failed_total >= operations


def column(batches, name):
    return np.concatenate([getattr(batch, name) for batch in batches])


def by_kind(batches):
    """Count the operations that succeeded, by kind."""
    kinds = np.concatenate([batch.kind_index[batch.sqlstate == b""] for batch in batches])
    return dict(zip(OperationKind, np.bincount(kinds, minlength=len(OperationKind)).tolist(), strict=True))


def adds_up(counters):
    parts = counters.succeeded_total + counters.failed_total + counters.skipped_total
    return counters.due_total == parts


def sessions(dsn, name="genesis-load"):
    return one(
        dsn,
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND datname = current_database()",
        name,
    )


@pytest.mark.parametrize("processes", [1, 2])
def test_the_open_loop_offers_its_rate_and_every_operation_is_accounted_for(loaded, processes):
    plan = LoadPlan(EVERY_KIND, rate_per_second=400.0, connections=4, processes=processes, seed=5)
    with LoadGenerator(loaded, plan) as load:
        assert len(load.process_ids) <= processes
        until(finished(load, 400))
        at_least = 400.0 * (time.monotonic() - load.started_at_seconds)
    at_most = 400.0 * (time.monotonic() - load.started_at_seconds)
    batches = load.samples()
    assert adds_up(load.counters)
    assert load.counters.failed_total == 0
    assert load.counters.restarts_total == 0
    assert sum(len(batch) for batch in batches) == load.counters.succeeded_total
    assert sum(batch.skipped_total for batch in batches) == load.counters.skipped_total
    # five standard deviations of a Poisson count, and what a starved client has not noticed yet
    assert at_least - 5 * np.sqrt(at_least) - 0.2 * 400.0 < load.counters.due_total < at_most + 5 * np.sqrt(at_most)
    assert all(by_kind(batches).values())


def drawn_from(plan, start_seconds, at_seconds):
    """Return when the plan's operations are due in the seconds around a moment, drawn anew."""
    stream, first = Stream(plan.seed, 0, ZipfKeys(1000, 0.99)), int((at_seconds - start_seconds) * 10)
    rate = plan.rate_per_second
    parts = [stream.interval(number, rate, plan.mix)[0] for number in range(first - 100, first + 100)]
    return np.round(start_seconds + np.concatenate(parts), 5)


def test_a_schedule_goes_on_where_it_would_be_after_connecting_and_after_a_sleep(loaded, monkeypatch):
    start_seconds = time.monotonic() - 1000.05
    plan = LoadPlan(READS, 300.0, connections=2, processes=1, seed=5, schedule_start_seconds=start_seconds)
    with LoadGenerator(loaded, plan) as load:
        until(finished(load, 50))
        slept_seconds = crew._asleep_seconds() + 3600.0
        slept_at = time.monotonic()
        monkeypatch.setattr(crew, "_asleep_seconds", lambda: slept_seconds)
        until(lambda: load.started_at_seconds < start_seconds)
        began_again_at = time.monotonic()
        until(finished(load, load.counters.succeeded_total + 100))
    assert load.started_at_seconds == pytest.approx(start_seconds - 3600.0, abs=0.001)
    assert adds_up(load.counters)
    due = np.round(column(load.samples(), "intended_start_seconds"), 5)
    before, after = due[due < slept_at], due[due > began_again_at + 0.3]
    assert len(before) > 20 and np.isin(before, drawn_from(plan, start_seconds, slept_at)).all()
    assert len(after) > 20 and np.isin(after, drawn_from(plan, load.started_at_seconds, began_again_at)).all()


def test_times_are_in_order_and_lag_is_no_part_of_queueing(loaded):
    with LoadGenerator(loaded, LoadPlan(SOAK_MIX, rate_per_second=500.0, connections=4)) as load:
        until(finished(load, 200))
    batches = load.samples()
    intended, start, end = (
        column(batches, name) for name in ("intended_start_seconds", "start_seconds", "end_seconds")
    )
    lag = column(batches, "lag_seconds")
    assert intended.min() >= load.started_at_seconds
    assert np.all(intended + lag <= start + 1e-6)
    assert np.all(lag >= 0)
    assert np.all(start < end)
    assert end.max() <= time.monotonic()


def test_the_closed_loop_keeps_its_clients_waiting_for_the_connections(loaded):
    plan = LoadPlan(READS, connections=2, clients=40, processes=1)
    with LoadGenerator(loaded, plan) as load:
        until(finished(load, 2_000))
    batches = load.samples()
    assert adds_up(load.counters)
    assert column(batches, "lag_seconds").size == 0
    response = column(batches, "end_seconds") - column(batches, "intended_start_seconds")
    service = column(batches, "end_seconds") - column(batches, "start_seconds")
    # Little's law: 40 in flight, 2 of them served at a time
    assert np.mean(response[200:]) / np.mean(service[200:]) == pytest.approx(20.0, rel=0.4)


def test_fewer_clients_than_connections_leave_connections_idle(loaded):
    with LoadGenerator(loaded, LoadPlan(READS, connections=6, clients=1, processes=1)) as load:
        until(finished(load, 200))
        assert sessions(loaded) == 6
    batches = load.samples()
    start, end = column(batches, "start_seconds"), column(batches, "end_seconds")
    order = np.argsort(start)
    assert np.all(end[order][:-1] <= start[order][1:])


def test_capacity_is_what_succeeds_per_second(loaded):
    plan = LoadPlan(READS, rate_per_second=10.0, connections=4, clients=4)
    assert measure_capacity(loaded, plan, 1.0) > 200.0
    with pytest.raises(UsageError):
        measure_capacity(loaded, plan, 0.0)


def test_the_ledger_rows_and_sums_are_those_of_acknowledged_operations(loaded):
    totals = "SELECT sum(balance), sum(updates_total) FROM genesis_load.accounts"
    with psycopg.connect(loaded, autocommit=True) as connection:
        balance_before, _ = connection.execute(totals).fetchone()
        events_before = connection.execute("SELECT count(*) FROM genesis_load.event_log").fetchone()[0]
    kinds = ("WRITE", "UPDATE", "TRANSACTION", "BULK_INSERT")
    mix = OperationMix({OperationKind[kind]: 1 for kind in kinds})
    with LoadGenerator(loaded, LoadPlan(mix, connections=8, clients=16)) as load:
        until(finished(load, 1_000))
    done = by_kind(load.samples())
    assert load.counters.failed_total == 0
    with psycopg.connect(loaded, autocommit=True) as connection:
        rows = dict(connection.execute("SELECT kind, count(*) FROM genesis_load.operations GROUP BY kind").fetchall())
        balance, updates = connection.execute(totals).fetchone()
        events = connection.execute("SELECT count(*) FROM genesis_load.event_log").fetchone()[0]
    assert rows["write"] == done[OperationKind.WRITE]
    assert rows["transaction"] == done[OperationKind.TRANSACTION] == events - events_before
    assert rows["bulk_insert"] == 100 * done[OperationKind.BULK_INSERT]
    assert updates == done[OperationKind.UPDATE]
    assert balance == balance_before


def test_deletes_take_rows_of_their_own_account_only(loaded):
    before = one(loaded, "SELECT count(*) FROM genesis_load.operations")
    plan = LoadPlan(OperationMix({OperationKind.DELETE: 1}), connections=4, clients=4, key_count=1, processes=1)
    with psycopg.connect(loaded, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO genesis_load.operations (account_id, kind, amount)"
            " SELECT 1, 'many', 1 FROM generate_series(1, 50)"
        )
    own = one(loaded, "SELECT count(*) FROM genesis_load.operations WHERE account_id = 1")
    with LoadGenerator(loaded, plan) as load:
        until(finished(load, 20))
    assert load.counters.failed_total == 0
    assert one(loaded, "SELECT count(*) FROM genesis_load.operations WHERE account_id = 1") == 0
    assert one(loaded, "SELECT count(*) FROM genesis_load.operations") == before + 50 - own


def test_response_times_contain_the_wait_for_a_connection(loaded):
    plan = LoadPlan(READS, rate_per_second=200.0, connections=1, processes=1)
    with LoadGenerator(loaded, plan) as load:
        until(finished(load, 20))
        stall = hold_table_lock(loaded, 0.5)
        until(finished(load, 150))
    batches = load.samples()
    intended, start, end = (
        column(batches, name) for name in ("intended_start_seconds", "start_seconds", "end_seconds")
    )
    inside = (intended > stall.began_seconds) & (intended < stall.began_seconds + 0.5)
    assert np.count_nonzero(inside) > 40
    # every one of them waited for the end of the stall; but all save one waited here, not at the server
    assert np.all(end[inside] >= stall.began_seconds + 0.5)
    assert np.count_nonzero(end - start > 0.2) <= 5


def test_what_finds_the_queue_full_is_counted_as_skipped(loaded):
    plan = LoadPlan(READS, rate_per_second=500.0, connections=1, processes=1, queue_limit=10)
    with LoadGenerator(loaded, plan) as load:
        hold_table_lock(loaded, 0.5)
        until(lambda: load.counters.skipped_total > 100)
    assert adds_up(load.counters)


def test_what_still_runs_after_the_drain_is_cancelled_and_counted(loaded):
    plan = LoadPlan(READS, rate_per_second=200.0, connections=3, processes=1, drain_seconds=0.2)
    locked = threading.Thread(target=hold_table_lock, args=(loaded, 2.0))
    with LoadGenerator(loaded, plan) as load:
        until(finished(load, 10))
        load.samples()
        locked.start()
        until(lambda: one(loaded, "SELECT count(*) FROM pg_locks WHERE NOT granted") >= 3)
    locked.join()
    codes = column(load.samples(), "sqlstate")
    assert np.count_nonzero(codes == b"57014") == 3
    assert load.counters.failed_total == 3
    assert adds_up(load.counters)
    assert sessions(loaded) == 0


def test_the_number_of_sessions_follows_the_limit(loaded):
    plan = LoadPlan(SOAK_MIX, rate_per_second=300.0, connections=2, processes=2)
    with LoadGenerator(loaded, plan) as load:
        assert sessions(loaded) == 2
        for wanted in (9, 1, 4):
            load.set_connections(wanted)
            assert load.plan.connections == wanted
            until(lambda wanted=wanted: sessions(loaded) == wanted)
        with pytest.raises(UsageError):
            load.set_connections(0)
        with pytest.raises(UsageError, match="free"):
            load.set_connections(5_000)
        before = load.counters.succeeded_total
        until(lambda: load.counters.succeeded_total > before + 100)
    assert adds_up(load.counters)
    assert load.counters.failed_total == 0
    assert sessions(loaded) == 0


def test_the_rate_can_be_changed_and_paused(loaded):
    with LoadGenerator(loaded, LoadPlan(READS, rate_per_second=50.0, connections=2, processes=2)) as load:
        until(finished(load, 10))
        load.set_rate(1_000.0)
        changed = time.monotonic()
        until(finished(load, 600))
        assert time.monotonic() - changed < 10.0  # 600 at 50/s would take 12 s
        load.set_rate(0.0)
        until(lambda: load.counters.due_total == load.counters.succeeded_total)
        paused = time.monotonic() + 0.5
        time.sleep(0.8)
    assert not np.any(column(load.samples(), "intended_start_seconds") > paused)
    with pytest.raises(UsageError):
        load.set_rate(-1.0)
    with pytest.raises(UsageError):
        load.set_rate(None)


def test_a_rate_that_one_process_cannot_serve_wakes_another(loaded):
    with LoadGenerator(loaded, LoadPlan(READS, rate_per_second=100.0, connections=4)) as load:
        if len(load.process_ids) < 2:
            pytest.skip("needs two cores")

        def more_sessions_in_the_first() -> int:
            first, second = (len(psutil.Process(pid).net_connections("unix")) for pid in load.process_ids)
            return first - second

        until(lambda: more_sessions_in_the_first() == 4)
        load.set_rate(5_100.0)
        until(lambda: more_sessions_in_the_first() == 0)
        load.set_rate(100.0)
        until(lambda: more_sessions_in_the_first() == 4)
    assert adds_up(load.counters)
    assert load.counters.failed_total == 0


def test_a_closed_loop_has_no_rate_to_change(loaded):
    load = LoadGenerator(loaded, LoadPlan(READS))
    with pytest.raises(UsageError, match="closed"):
        load.set_rate(10.0)


@pytest.mark.parametrize("rate", [None, 500.0], ids=["closed", "open"])
def test_the_mix_can_be_changed_and_new_kinds_are_prepared_on_the_way(loaded, rate):
    plan = LoadPlan(READS, rate_per_second=rate, connections=2, clients=20, processes=1)
    with LoadGenerator(loaded, plan) as load:
        until(finished(load, 20))
        load.set_mix(WRITES)
        changed = time.monotonic()
        until(lambda: time.monotonic() > changed + 0.5)
        load.samples()
        before = load.counters.succeeded_total
        until(finished(load, before + 50))
    late = by_kind(
        [batch for batch in load.samples() if len(batch) and batch.intended_start_seconds.min() > changed + 0.5]
    )
    assert late[OperationKind.WRITE] > 0
    assert late[OperationKind.READ] == 0


def test_session_settings_are_in_force_in_every_session(loaded):
    settings = {"application_name": "tuned", "work_mem": "7MB"}
    plan = LoadPlan(READS, rate_per_second=10.0, connections=3, processes=1, session_settings=settings)
    with LoadGenerator(loaded, plan):
        assert sessions(loaded, "tuned") == 3
        assert sessions(loaded, "genesis-load") == 0


def test_functions_of_others_cannot_shadow_those_of_postgresql(loaded):
    with psycopg.connect(loaded, autocommit=True) as connection:
        connection.execute("CREATE FUNCTION public.sum(bigint) RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RAISE; END'")
        connection.execute(
            "ALTER ROLE CURRENT_USER IN DATABASE " + connection.info.dbname + " SET search_path = public, pg_catalog"
        )
    with LoadGenerator(loaded, LoadPlan(EVERY_KIND, rate_per_second=200.0, connections=2)) as load:
        until(finished(load, 50))
    assert load.counters.failed_total == 0


@pytest.mark.parametrize(
    "wrong",
    [{"work_mem": "lots"}, {"no_such_setting": "1"}, {"shared_buffers": "1GB"}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_session_setting_that_the_server_refuses_is_a_usage_error(loaded, wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        LoadGenerator(loaded, LoadPlan(READS, session_settings=wrong))


def test_more_connections_than_the_server_has_free_are_refused(loaded):
    with pytest.raises(UsageError, match="free"):
        LoadGenerator(loaded, LoadPlan(READS, connections=200))


def test_more_keys_than_accounts_are_refused(loaded):
    with pytest.raises(UsageError, match="key_count"):
        LoadGenerator(loaded, LoadPlan(READS, key_count=2_001))


def test_without_tables_there_is_no_load(database):
    with pytest.raises(SchemaMissing):
        LoadGenerator(database, LoadPlan(READS))


def test_a_server_that_is_not_there_is_unreachable(tmp_path):
    with pytest.raises(ServerUnreachable):
        LoadGenerator(f"host={tmp_path} user=nobody dbname=nowhere", LoadPlan(READS))


def test_an_owner_without_superuser_can_load(owner):
    create_tables(owner, SCALE)
    with LoadGenerator(owner, LoadPlan(EVERY_KIND, rate_per_second=200.0, connections=2)) as load:
        until(finished(load, 50))
    assert load.counters.failed_total == 0


def test_a_password_from_pgpass_and_a_service_file_reach_the_client_processes(
    binaries, folder, session_folder, tmp_path, monkeypatch
):
    with EmbeddedServer.start(
        folder, binaries=binaries, tcp_port=0, password="s3cret: word", system_state=session_folder / "system"
    ) as server:
        create_tables(server.dsn, SCALE)
        user = conninfo_to_dict(server.dsn)["user"]
        passwords, services = tmp_path / "pgpass", tmp_path / "services"
        passwords.write_text(f"127.0.0.1:{server.tcp_port}:*:{user}:s3cret\\: word\n")
        passwords.chmod(0o600)
        services.write_text(f"[tuned]\nhost=127.0.0.1\nport={server.tcp_port}\nuser={user}\ndbname=postgres\n")
        monkeypatch.setenv("PGPASSFILE", str(passwords))
        monkeypatch.setenv("PGSERVICEFILE", str(services))
        with LoadGenerator("service=tuned", LoadPlan(READS, rate_per_second=100.0, connections=2)) as load:
            until(finished(load, 20))
        assert load.counters.failed_total == 0


def test_stopping_twice_or_before_the_start_does_nothing(loaded):
    load = LoadGenerator(loaded, LoadPlan(READS, rate_per_second=100.0, connections=1))
    load.stop()
    with load:
        until(finished(load, 5))
        load.stop()
        counters = load.counters
    assert load.counters == counters
    assert adds_up(counters)


def test_the_batches_fit_the_recorder(loaded):
    from ml_postgres_optimization.telemetry import Recorder, Snapshot, SystemClock

    class Nothing:
        def snapshot(self):
            return Snapshot(SystemClock().now(), time.monotonic(), {})

        def activity(self):
            raise AssertionError

    store = MemoryStore()
    with LoadGenerator(loaded, LoadPlan(SOAK_MIX, rate_per_second=500.0, connections=4)) as load:
        recorder = Recorder(Nothing(), SystemClock(), samples=load.samples, subscribers=[store.add])
        until(finished(load, 200))
        window = recorder.record(0.0, configuration_id="base")
    assert store.windows() == [window]
    assert window.operations_total >= 200
    assert window.failed_total == 0
    assert set(window.operations) == set(SOAK_MIX.kinds)
    assert window.lag.total == window.operations_total


def test_a_window_holds_what_ended_in_it(loaded):
    from ml_postgres_optimization.telemetry import ActivitySample, Recorder, Snapshot, SystemClock

    class Nothing:
        def __init__(self):
            self.taken_seconds = []

        def snapshot(self):
            self.taken_seconds.append(time.monotonic())
            return Snapshot(SystemClock().now(), self.taken_seconds[-1], {})

        def activity(self):
            return ActivitySample({}, 0, 0, 0, 0.0)

    told, server = [], Nothing()

    def samples():
        batches = load.samples()
        told.extend(batches)
        return batches

    plan = LoadPlan(READS, rate_per_second=400.0, connections=4, processes=2)
    with LoadGenerator(loaded, plan) as load:
        until(finished(load, 50))
        recorder = Recorder(server, SystemClock(), samples=samples)
        recorder.discard()
        windows = [recorder.record(0.3, configuration_id="base") for _ in range(4)]
    rest = recorder.finish(configuration_id="base")
    ends = column(told, "end_seconds")
    limits = server.taken_seconds
    counts = [np.count_nonzero((ends > since) & (ends <= upto)) for since, upto in itertools.pairwise(limits[:5])]
    assert [window.operations_total for window in windows] == counts
    assert rest.operations_total == np.count_nonzero(ends > limits[4])
    came_due = sum(window.due_total for window in windows)
    expected = 400.0 * (limits[4] - limits[0])
    assert abs(came_due - expected) < 6 * np.sqrt(expected) + 2 * 400.0 * 0.2, (
        "a Poisson count, and a stretch each side"
    )


def test_the_clients_own_cost_is_known(loaded):
    with LoadGenerator(loaded, LoadPlan(READS, connections=2, clients=2, processes=1)) as load:
        assert load.cpu_ratio >= 0.0
        until(finished(load, 2_000))
        until(lambda: load.cpu_ratio > 0.0)
        assert load.cpu_ratio < 1.5
        assert load.cpu_ratio_since(load.started_at_seconds) > 0.0
        assert 0.0 < load.counters.garbage_seconds_total < time.monotonic() - load.started_at_seconds


@pytest.mark.parametrize("seconds", [0.1, 0.5])
def test_clients_report_as_seldom_as_they_are_told_to(loaded, seconds):
    plan = LoadPlan(READS, connections=1, clients=1, processes=1, report_seconds=seconds)
    with LoadGenerator(loaded, plan) as load:
        until(lambda: time.monotonic() > load.started_at_seconds + 1.6)
        batches = load.samples()
    spans = [batch.until_seconds - batch.since_seconds for batch in batches[1:]]
    assert np.median(spans) == pytest.approx(seconds, rel=0.5)


ARMS = (LoadArm("one", {"application_name": "arm one"}), LoadArm("two", {"application_name": "arm two"}))


def pids_of(dsn, name):
    with psycopg.connect(dsn, autocommit=True) as connection:
        query = "SELECT pid FROM pg_stat_activity WHERE application_name = %s ORDER BY pid"
        return tuple(pid for (pid,) in connection.execute(query, [name]))


@pytest.mark.parametrize("processes", [1, 2])
def test_a_divided_load_gives_each_arm_half_of_the_sessions_and_of_the_operations(loaded, processes):
    plan = LoadPlan(READS, rate_per_second=600.0, connections=4, processes=processes)
    with LoadGenerator(loaded, plan) as load:
        assert load.can_divide(ARMS[0].settings)
        load.divide(ARMS)
        until(lambda: sessions(loaded, "arm one") == sessions(loaded, "arm two") == 2)
        time.sleep(0.5)  # until what was done before is reported
        load.samples()
        time.sleep(1.5)
        of_arms = load.samples()
        load.divide(())
        until(lambda: sessions(loaded, "genesis-load") == 4)
    ended = {arm: sum(len(batch) for batch in of_arms if batch.arm == arm) for arm in ("one", "two", "")}
    assert not ended[""]
    assert 0.35 < ended["one"] / (ended["one"] + ended["two"]) < 0.65
    counters = load.counters
    assert counters.failed_total == 0
    assert counters.due_total == counters.succeeded_total + counters.skipped_total


def test_sessions_are_drawn_afresh_whenever_they_are_divided(loaded):
    with LoadGenerator(loaded, LoadPlan(READS, rate_per_second=50.0, connections=6, processes=1)) as load:
        drawn = set()
        for arms in (ARMS, ARMS[::-1]) * 3:
            before = pids_of(loaded, "arm one")
            load.divide(arms)
            until(lambda: sessions(loaded, "arm one") == sessions(loaded, "arm two") == 3)
            time.sleep(0.3)
            drawn.add(pids_of(loaded, "arm one"))
            assert len(pids_of(loaded, "arm one")) == 3, before
    assert len(drawn) >= 3


def test_a_session_of_an_arm_that_breaks_comes_back_into_its_arm(loaded):
    with LoadGenerator(loaded, LoadPlan(READS, rate_per_second=100.0, connections=4, processes=1)) as load:
        load.divide(ARMS)
        until(lambda: sessions(loaded, "arm one") == sessions(loaded, "arm two") == 2)
        gone = pids_of(loaded, "arm two")[0]
        one(loaded, "SELECT pg_terminate_backend(%s)", gone)
        until(lambda: gone not in pids_of(loaded, "arm two") and sessions(loaded, "arm two") == 2)
        assert sessions(loaded, "arm one") == 2


def test_what_cannot_be_divided_says_so(loaded):
    with LoadGenerator(loaded, LoadPlan(READS, rate_per_second=10.0, connections=2)) as load:
        assert not load.can_divide({"work_mem": "lots"})
        assert not load.can_divide({"shared_buffers": "1GB"})
        load.set_connections(1)
        assert not load.can_divide({})
        with pytest.raises(UsageError, match="connections"):
            load.divide(ARMS)
    with LoadGenerator(loaded, LoadPlan(READS, connections=4, clients=4)) as load:
        assert not load.can_divide({})
        with pytest.raises(UsageError, match="closed loop"):
            load.divide(ARMS)


def test_a_session_that_is_arranged_anew_plans_anew_and_forgets_what_it_was_set_before(loaded):
    async def scans():
        info = conninfo_to_dict(loaded)
        connect = (
            {"dsn": loaded}
            if loaded.startswith("postgresql:")
            else {"host": info["host"], "port": info["port"], "user": info["user"], "database": info["dbname"]}
        )
        mix = OperationMix({OperationKind.READ: 1})
        prepare = preparer(mix, account_count=10, session_number=0)
        beginning = {**session_defaults(mix), "work_mem": "5MB"}
        session = await Session.open(connect, prepare, mix.shares, beginning=beginning, settings={})
        ask = session._connection.fetchval
        # this query is a prepared statement too, and EXPLAIN EXECUTE is silent on a parameter too many
        name = await ask("SELECT name FROM pg_prepared_statements WHERE parameter_types = '{bigint}'")
        seen = []
        no_index = {"enable_indexscan": "off", "enable_bitmapscan": "off", "enable_indexonlyscan": "off"}
        for settings in ({}, {**no_index, "work_mem": "6MB"}, {}):
            await session.arrange(settings)
            for key in range(8):
                await session.performers[0](key, 0, 0)
            plan = await session._connection.fetch(f"EXPLAIN EXECUTE {name}(1)")
            seen.append(("Seq Scan" in str(plan), await ask("SELECT current_setting('work_mem')")))
        seen.append(await ask("SELECT current_setting('enable_indexscan')"))
        await session.close()
        return seen

    assert asyncio.run(scans()) == [(False, "5MB"), (True, "6MB"), (False, "5MB"), "on"]
