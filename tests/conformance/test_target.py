"""What every `Target` must do: one suite for the simulated server and for a real PostgreSQL."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from ml_postgres_optimization.errors import ChangeRefused
from ml_postgres_optimization.knobs.configuration import RoleSetting
from ml_postgres_optimization.target.postgres.connection import resolve_connection
from ml_postgres_optimization.target.postgres.server import PostgresTarget
from ml_postgres_optimization.target.protocols import Target
from ml_postgres_optimization.target.restart import EmbeddedRestarter
from ml_postgres_optimization.target.simulated import SimulatedTarget
from ml_postgres_optimization.target.simulated.role_settings import APPLICATION
from ml_postgres_optimization.telemetry import VirtualClock

KNOBS = (
    "autovacuum_vacuum_cost_limit",
    "checkpoint_completion_target",
    "effective_io_concurrency",
    "jit",
    "plan_cache_mode",
    "random_page_cost",
    "shared_buffers",
    "work_mem",
)
RELOADABLE = {
    "work_mem": (16384, 32768),
    "checkpoint_completion_target": (0.5, 0.75),
    "random_page_cost": (1.5, 2.0),
    "jit": (False, True),
    "plan_cache_mode": ("force_custom_plan", "force_generic_plan"),
    "autovacuum_vacuum_cost_limit": (2000, -1),
}
REFUSED = [
    ("work_mem", 1),
    ("work_mem", 10**12),
    ("work_mem", "plenty"),
    ("work_mem", True),
    ("checkpoint_completion_target", 1.5),
    ("random_page_cost", -1.0),
    ("random_page_cost", "nan"),
    ("jit", "perhaps"),
    ("jit", 17),
    ("plan_cache_mode", "none_of_them"),
    ("block_size", 16384),
    ("there_is_no_such_setting", 1),
]


@dataclass
class Subject:
    """A target, and a way to give it 100 transactions to count."""

    target: Target
    work: Callable[[], None]

    def setting(self, name):
        return self.target.settings([name])[name]


@pytest.fixture(scope="module")
def dsn(server) -> Iterator[str]:
    """One database for all of the suite: making one takes longer than most of its tests."""
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute("CREATE DATABASE conformance")
        dsn = make_conninfo(server.dsn, dbname="conformance")
        with psycopg.connect(dsn) as inside:
            if "pg_stat_statements" in connection.execute("SHOW shared_preload_libraries").fetchone()[0]:
                inside.execute("CREATE EXTENSION pg_stat_statements")
        connection.execute(f"CREATE ROLE {APPLICATION}")
        yield dsn
        connection.execute("DROP DATABASE conformance WITH (FORCE)")
        connection.execute(f"DROP ROLE {APPLICATION}")


@pytest.fixture(params=["simulated", "real"])
def subject(request) -> Iterator[Subject]:
    if request.param == "simulated":
        clock = VirtualClock()
        yield Subject(SimulatedTarget(clock, seed=1, rate_per_second=100), lambda: clock.sleep(1))
        return
    dsn = request.getfixturevalue("dsn")
    with PostgresTarget.open(resolve_connection(dsn, {})) as target:
        yield Subject(target, lambda: hundred_transactions(dsn))
        for name, setting in target.settings(KNOBS).items():
            if setting.written_value is not None:
                target.restore(name, None)
        target.reload()


def hundred_transactions(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for _ in range(100):
            connection.execute("SELECT count(*) FROM pg_class")


@pytest.fixture
def target(subject) -> Target:
    return subject.target


class TestSnapshot:
    def test_values_are_named_by_convention_and_finite(self, target):
        snapshot = target.snapshot()
        assert snapshot.taken_at.tzinfo is not None
        assert snapshot.values
        for name, value in snapshot.values.items():
            assert re.fullmatch(r"[a-z_]+\.[a-z][a-z0-9_]*", name)
            assert isinstance(value, float)
            assert abs(value) < float("inf")

    def test_what_is_unseen_has_a_reason_and_no_value(self, target):
        snapshot = target.snapshot()
        assert all(snapshot.unseen.values())
        assert not [name for name in snapshot.values if {name, name.split(".")[0]} & set(snapshot.unseen)]

    def test_no_counter_goes_down(self, subject):
        before = subject.target.snapshot()
        subject.work()
        after = subject.target.snapshot()
        assert after.monotonic_seconds > before.monotonic_seconds
        fallen = {
            name: (before.values[name], value)
            for name, value in after.values.items()
            if name.endswith("_total") and value < before.values.get(name, value)
        }
        assert not fallen
        assert not [name for name, value in after.values.items() if name.endswith("_total") and value < 0]

    def test_work_is_counted(self, subject):
        before = subject.target.snapshot().values["database.commits_total"]
        subject.work()
        # a session hands over its counts when it ends, on 14 through a process that writes them out twice a second
        deadline = time.monotonic() + 5
        while subject.target.snapshot().values["database.commits_total"] < before + 100:
            assert time.monotonic() < deadline

    def test_statements_are_counted_by_query_user_and_database(self, subject):
        first = subject.target.snapshot()
        if "statements" in first.unseen:
            pytest.skip(first.unseen["statements"])
        subject.work()
        statements = subject.target.snapshot().statements
        assert statements
        for key, counters in statements.items():
            assert [type(part) for part in key] == [int, int, int]
            assert counters.calls_total >= first.statements[key].calls_total if key in first.statements else True
            assert counters.execution_seconds_total >= 0


def test_activity_is_consistent(target):
    activity = target.activity()
    assert all(sessions > 0 for sessions in activity.active_sessions_by_wait.values())
    assert activity.blocked_sessions <= activity.active_sessions_by_wait.get("Lock", 0)
    assert activity.idle_in_transaction_sessions <= activity.connections
    assert activity.longest_transaction_seconds >= 0


def test_capabilities_and_machine_say_what_it_is(target):
    assert target.capabilities.major >= 14
    assert target.capabilities.may_change("work_mem")
    assert target.machine.memory_limit_bytes > 0
    assert target.machine.cpus > 0


class TestSettings:
    def test_a_value_has_the_type_of_its_kind(self, target):
        types = {"bool": bool, "integer": int, "real": float, "enum": str}
        for setting in target.settings(KNOBS).values():
            assert type(setting.value) is types[setting.kind]

    def test_a_value_is_one_of_those_allowed(self, target):
        for setting in target.settings(KNOBS).values():
            if setting.kind in {"integer", "real"}:
                assert setting.minimum <= setting.value <= setting.maximum
            if setting.kind == "enum":
                assert setting.value in setting.enumvals

    def test_all_that_there_are_come_back_under_their_names(self, target):
        settings = target.settings([*KNOBS, "there_is_no_such_setting"])
        assert set(settings) == set(KNOBS)
        assert all(setting.name == name for name, setting in settings.items())

    def test_of_nothing_there_is_nothing(self, target):
        assert dict(target.settings([])) == {}


class TestChange:
    @pytest.mark.parametrize("name", RELOADABLE)
    def test_a_written_value_is_in_force_after_the_reload_and_not_before(self, subject, name):
        before, (value, _) = subject.setting(name), RELOADABLE[name]
        subject.target.write(name, value)
        written = subject.setting(name)
        assert (written.value, written.source) == (before.value, before.source)
        assert written.written_value is not None
        subject.target.reload()
        after = subject.setting(name)
        assert (after.value, after.source) == (value, "configuration file")
        assert type(after.value) is type(before.value)

    @pytest.mark.parametrize("name", RELOADABLE)
    def test_what_was_never_written_is_restored_to_nothing(self, subject, name):
        before = subject.setting(name)
        assert before.written_value is None
        subject.target.write(name, RELOADABLE[name][0])
        subject.target.reload()
        subject.target.restore(name, before.written_value)
        subject.target.reload()
        assert subject.setting(name) == before

    @pytest.mark.parametrize("name", RELOADABLE)
    def test_what_was_written_is_restored_as_it_stood(self, subject, name):
        first, second = RELOADABLE[name]
        subject.target.write(name, first)
        subject.target.reload()
        before = subject.setting(name)
        subject.target.write(name, second)
        subject.target.reload()
        assert subject.setting(name).value == second
        subject.target.restore(name, before.written_value)
        subject.target.reload()
        assert subject.setting(name) == before

    @pytest.mark.parametrize("name", RELOADABLE)
    def test_what_is_not_as_expected_is_neither_written_nor_restored(self, subject, name):
        first, second = RELOADABLE[name]
        assert subject.target.write(name, first, only_if=lambda setting: setting.written_value is None)
        written = subject.setting(name)
        assert not subject.target.write(name, second, only_if=lambda setting: setting.written_value is None)
        assert not subject.target.restore(name, None, only_if=lambda setting: setting.written_value is None)
        assert subject.setting(name) == written

    def test_a_setting_of_a_role_is_there_at_once_and_goes_back_to_what_stood(self, subject):
        database = subject.target.capabilities.database
        key = RoleSetting("lock_timeout", APPLICATION, database).key
        nothing = subject.setting(key)
        assert (nothing.written_value, nothing.value, nothing.unit) == (None, 0, "ms")
        assert subject.target.restore(key, "3s")
        before = subject.setting(key)
        assert (before.written_value, before.value, before.source) == ("3s", 3000, "database user")
        assert not subject.target.write(key, 2000, only_if=lambda setting: setting.written_value is None)
        assert subject.target.write(key, 2000, only_if=lambda setting: setting == before)
        assert subject.setting(key).value == 2000
        assert not subject.target.restore(key, None, only_if=lambda setting: setting == before)
        assert subject.target.restore(key, "3s")
        assert subject.setting(key) == before
        assert subject.target.restore(key, None)
        assert subject.setting(key) == nothing
        assert not subject.target.settings([RoleSetting("lock_timeout", "nobody", database).key])
        assert subject.target.role("nobody") is None
        seen = subject.target.role(APPLICATION)
        assert (seen.is_superuser, seen.is_ours, seen.may_be_set) == (False, False, True)
        for value in (-1, "soon"):
            with pytest.raises(ChangeRefused):
                subject.target.write(key, value)

    def test_the_last_value_written_wins(self, subject):
        for value in (8192, 16384, 32768):
            subject.target.write("work_mem", value)
        subject.target.reload()
        assert subject.setting("work_mem").value == 32768

    def test_a_whole_number_may_come_as_a_real_one(self, subject):
        subject.target.write("work_mem", 16384.0)
        subject.target.reload()
        assert subject.setting("work_mem").value == 16384
        assert type(subject.setting("work_mem").value) is int

    def test_several_settings_change_with_one_reload(self, subject):
        for name, (value, _) in RELOADABLE.items():
            subject.target.write(name, value)
        subject.target.reload()
        assert {name: subject.setting(name).value for name in RELOADABLE} == {
            name: value for name, (value, _) in RELOADABLE.items()
        }

    @pytest.mark.parametrize(("name", "value"), REFUSED)
    def test_a_bad_value_is_refused_and_nothing_changes(self, subject, name, value):
        before = dict(subject.target.settings([*KNOBS, name]))
        with pytest.raises(ChangeRefused) as refusal:
            subject.target.write(name, value)
        assert name in refusal.value.what
        assert refusal.value.next_step
        subject.target.reload()
        assert dict(subject.target.settings([*KNOBS, name])) == before

    def test_restoring_what_was_never_touched_changes_nothing(self, subject):
        before = dict(subject.target.settings(KNOBS))
        subject.target.restore("work_mem", None)
        subject.target.reload()
        assert dict(subject.target.settings(KNOBS)) == before

    def test_a_setting_of_the_postmaster_waits_for_a_restart(self, subject):
        before = subject.setting("shared_buffers")
        assert not before.pending_restart
        subject.target.write("shared_buffers", before.value + 1024)
        subject.target.reload()
        waiting = subject.setting("shared_buffers")
        assert waiting.value == before.value
        assert waiting.pending_restart
        subject.target.restore("shared_buffers", before.written_value)
        subject.target.reload()
        assert subject.setting("shared_buffers") == before


def test_a_restart_brings_what_waits_for_one_and_another_takes_it_back(restartable):
    target = restartable
    before = target.settings(["shared_buffers"])["shared_buffers"]
    assert target.can_restart
    target.rehearse({"shared_buffers": before.value * 2})
    target.write("shared_buffers", before.value * 2)
    target.restart({"shared_buffers": before.written_value})
    after = target.settings(["shared_buffers"])["shared_buffers"]
    assert (after.value, after.pending_restart) == (before.value * 2, False)
    target.restore("shared_buffers", before.written_value)
    target.restart({})
    assert target.settings(["shared_buffers"])["shared_buffers"] == before


def test_a_value_with_which_it_does_not_start_is_found_out_or_taken_back(restartable):
    target = restartable
    before = target.settings(["shared_buffers"])["shared_buffers"]
    with pytest.raises(ChangeRefused):
        target.rehearse({"shared_buffers": 1 << 29})
    target.write("shared_buffers", 1 << 29)
    with pytest.raises(ChangeRefused):
        target.restart({"shared_buffers": before.written_value})
    assert target.settings(["shared_buffers"])["shared_buffers"] == before


@pytest.fixture(params=["simulated", "real"])
def restartable(request) -> Iterator[Target]:
    """A target that may be restarted."""
    if request.param == "simulated":
        yield SimulatedTarget(VirtualClock(), seed=1)
        return
    own = request.getfixturevalue("own_server")
    with (
        EmbeddedRestarter(own) as restarter,
        PostgresTarget.open(resolve_connection(own.dsn, {}), restarter=lambda *_: restarter) as target,
    ):
        yield target


def test_the_simulated_server_speaks_the_names_of_the_real_one(dsn):
    simulated = SimulatedTarget(VirtualClock(), seed=1)
    with PostgresTarget.open(resolve_connection(dsn, {})) as real:
        assert set(simulated.snapshot().values) - set(real.snapshot().values) == set()
        stock = simulated.settings(KNOBS)
        assert {name: (setting.kind, setting.unit, setting.context) for name, setting in stock.items()} == {
            name: (setting.kind, setting.unit, setting.context) for name, setting in real.settings(KNOBS).items()
        }
