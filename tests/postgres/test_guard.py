"""The guard on a real server: killed, interrupted, contradicted, refused and cut off."""

import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace

import psycopg
import pytest
from guarded_trial import CANDIDATE, ROLE, role_candidate
from protected_trial import (
    ROLE_SETTINGS,
    SCRIPT,
    STOCK,
    TRIED,
    by_hand,
    make_role,
    role_settings,
    seen,
    written,
)

from ml_postgres_optimization.errors import ChangeRefused, PrivilegeMissing, ServerUnreachable
from ml_postgres_optimization.knobs.catalogue import load_catalogue
from ml_postgres_optimization.knobs.configuration import Change, RoleSetting
from ml_postgres_optimization.safety.guard import Guard
from ml_postgres_optimization.safety.journal import Journal, RecordKind
from ml_postgres_optimization.safety.permission import permitted
from ml_postgres_optimization.safety.rollback import rollback
from ml_postgres_optimization.safety.undo import undo_unfinished
from ml_postgres_optimization.target.embedded import EmbeddedServer
from ml_postgres_optimization.target.postgres.actuator import PostgresActuator
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings, LastingConnection
from ml_postgres_optimization.target.postgres.server import PostgresTarget

PATIENCE_SECONDS = 30


class HurriedClock:
    """Real time, twenty times as fast: what takes 5 s at most takes 0.25 s."""

    def monotonic_seconds(self):
        return time.monotonic() * 20

    def sleep(self, seconds):
        time.sleep(seconds / 20)


@pytest.fixture(scope="module")
def guarded_server(binaries, module_folder, session_folder):
    with EmbeddedServer.start(
        module_folder,
        binaries=binaries,
        settings={"fsync": "off"},
        system_state=session_folder / "system",
    ) as server:
        make_role(server.dsn)
        yield server


@pytest.fixture
def dsn(guarded_server):
    yield guarded_server.dsn
    by_hand(guarded_server.dsn, "ALTER SYSTEM RESET ALL", "ALTER ROLE postgres RESET ALL", "SELECT pg_reload_conf()")


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "journal-of-the-server"


@contextmanager
def guarded(dsn, directory, **more):
    """A guard with all that it needs."""
    with PostgresTarget.open(ConnectionSettings.from_dsn(dsn)) as target, Journal(directory) as journal:
        catalogue = load_catalogue()
        settings = target.settings(catalogue.settings_needed)
        confronted = catalogue.confront(settings, target.capabilities.major)
        yield Guard(
            more.pop("actuator", target),
            catalogue=confronted,
            machine=target.machine,
            journal=journal,
            capabilities=more.pop("capabilities", target.capabilities),
            active=8,
            roles=more.pop("roles", [ROLE]),
        )


def change(guard, values=None):
    baseline = guard.catalogue.configuration_of(guard.actuator.settings(guard.catalogue.settings_needed))
    return Change(baseline, baseline.replaced(CANDIDATE if values is None else values))


@contextmanager
def trial_process(dsn, directory, moment):
    """A trial in another process, which has reached its moment."""
    process = subprocess.Popen(
        [sys.executable, SCRIPT, dsn, directory, moment], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline().strip() == moment.rpartition("/")[2], process.stderr.read()
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_trial_reaches_other_sessions_and_leaves_nothing(dsn, directory, guarded_server):
    with guarded(dsn, directory) as guard:
        with guard.trial(change(guard), "t1") as trial:
            for _ in range(2):
                trial.apply()
                assert seen(dsn, *TRIED) == TRIED
                trial.withdraw()
                assert seen(dsn, *STOCK) == STOCK
        assert written(guarded_server) == []
        assert guard.journal.state.unfinished == ()


def test_a_confirmed_trial_outlives_us_and_can_be_rolled_back(dsn, directory, guarded_server):
    by_hand(dsn, "ALTER SYSTEM SET work_mem = '6MB'", "SELECT pg_reload_conf()")
    with guarded(dsn, directory) as guard, guard.trial(change(guard), "t1") as trial:
        trial.apply()
        trial.confirm()
    assert seen(dsn, *TRIED) == TRIED
    with guarded(dsn, directory) as guard:
        (undone,) = rollback(guard)
    assert undone.restored == {"jit": "nothing", "random_page_cost": "nothing", "work_mem": "6MB"}
    assert seen(dsn, "work_mem", "jit") == {"work_mem": "6MB", "jit": "on"}
    assert written(guarded_server) == ["work_mem = '6MB'"]


@pytest.mark.parametrize(
    "moment",
    [
        *("intent", "write 1", "write 3", "reload 1", "restore 1", "reload 2"),
        *("role/write 1", "role/applied", "role/restore 2"),
    ],
)
def test_kill_9_at_any_moment_is_undone_at_the_next_start(dsn, directory, guarded_server, moment):
    with trial_process(dsn, directory, moment) as process:
        process.kill()
        process.wait(PATIENCE_SECONDS)
    with guarded(dsn, directory) as guard:
        (undone,) = undo_unfinished(guard.actuator, guard.journal)
        assert undone.trial_id == "t1"
        assert undone.foreign == {}
        assert undo_unfinished(guard.actuator, guard.journal) == ()
    assert seen(dsn, *STOCK) == STOCK
    assert written(guarded_server) == []
    assert role_settings(dsn) == ROLE_SETTINGS


@pytest.mark.parametrize("moment", ["write 2", "applied", "restore 1"])
def test_ctrl_c_puts_everything_back_and_more_of_it_does_no_harm(dsn, directory, guarded_server, moment):
    with trial_process(dsn, directory, moment) as process:
        for _ in range(3):
            process.send_signal(signal.SIGINT)
            time.sleep(0.01)
        _, complaint = process.communicate(timeout=PATIENCE_SECONDS)
        assert "KeyboardInterrupt" in complaint
    assert seen(dsn, *STOCK) == STOCK
    assert written(guarded_server) == []
    with Journal(directory) as journal:
        assert journal.state.trials["t1"].status is RecordKind.REVERTED


def test_somebody_elses_change_survives_kill_9_and_the_undoing(dsn, directory, guarded_server):
    with trial_process(dsn, directory, "applied") as process:
        by_hand(dsn, "ALTER SYSTEM SET work_mem = '7MB'", "SELECT pg_reload_conf()")
        process.kill()
        process.wait(PATIENCE_SECONDS)
    with guarded(dsn, directory) as guard:
        (undone,) = undo_unfinished(guard.actuator, guard.journal)
    assert undone.foreign == {"work_mem": "7MB"}
    assert "left as somebody else set it: work_mem = 7MB" in str(undone)
    assert seen(dsn, *STOCK) == {**STOCK, "work_mem": "7MB"}
    assert written(guarded_server) == ["work_mem = '7MB'"]


def test_somebody_elses_change_during_the_trial_survives_and_ends_it(dsn, directory):
    with guarded(dsn, directory) as guard, guard.trial(change(guard), "t1") as trial:
        trial.apply()
        by_hand(dsn, "ALTER SYSTEM SET work_mem = '7MB'", "SELECT pg_reload_conf()")
        trial.withdraw()
        assert trial.foreign_changes == {"work_mem": "7MB"}
        with pytest.raises(ChangeRefused, match="work_mem was changed by somebody else"):
            trial.apply()
    assert seen(dsn, *STOCK) == {**STOCK, "work_mem": "7MB"}


@pytest.mark.pg(">= 15")
def test_when_the_third_write_is_refused_the_first_two_are_undone(dsn, directory, guarded_server):
    by_hand(
        dsn,
        "CREATE ROLE half LOGIN",
        "GRANT ALTER SYSTEM ON PARAMETER jit, random_page_cost TO half",
        "GRANT EXECUTE ON FUNCTION pg_reload_conf(), pg_show_all_file_settings() TO half",
        "GRANT SELECT ON pg_file_settings TO half",
        "GRANT pg_monitor TO half",
    )
    try:
        half = psycopg.conninfo.make_conninfo(dsn, user="half")
        with PostgresTarget.open(ConnectionSettings.from_dsn(half)) as target:
            capabilities = target.capabilities
        overestimated = replace(capabilities, may_alter_system=True)
        with (
            guarded(half, directory, capabilities=overestimated) as guard,
            pytest.raises(PrivilegeMissing, match="work_mem"),
            guard.trial(change(guard), "t1") as trial,
        ):
            trial.apply()
        assert written(guarded_server) == []
        assert seen(dsn, *STOCK) == STOCK
        with guarded(half, directory) as guard:
            assert {"jit", "random_page_cost"} == set(permitted(guard.catalogue, capabilities).online) - {
                "client.concurrency"
            }
            with pytest.raises(ChangeRefused, match='GRANT ALTER SYSTEM ON PARAMETER work_mem TO "half"'):
                guard.review(change(guard).after)
            with guard.trial(change(guard, {"jit": False}), "t2") as trial:
                trial.apply()
                assert seen(dsn, "jit") == {"jit": "off"}
        assert written(guarded_server) == []
    finally:
        by_hand(dsn, "DROP OWNED BY half", "DROP ROLE half")


def test_a_setting_of_the_role_that_wins_over_ours_is_named_and_everything_put_back(dsn, directory, guarded_server):
    settings = ConnectionSettings.from_dsn(dsn)
    with guarded(dsn, directory) as ordinary:
        capabilities = ordinary.actuator.capabilities
    session = LastingConnection(settings, "settings")
    actuator = PostgresActuator(settings, capabilities, session, clock=HurriedClock())
    try:
        with guarded(dsn, directory, actuator=actuator) as guard, guard.trial(change(guard), "t1") as trial:
            by_hand(dsn, "ALTER ROLE postgres SET work_mem = '5MB'")
            with pytest.raises(ChangeRefused, match=r"work_mem .*(user|ALTER ROLE)"):
                trial.apply()
            assert written(guarded_server) == []
            assert seen(dsn, *STOCK) == {**STOCK, "work_mem": "5MB"}
        assert guard.journal.state.unfinished == ()
    finally:
        session.close()


def test_a_server_that_crashes_during_the_trial_is_put_right_when_it_is_back(own_server, directory):
    dsn = own_server.dsn
    with guarded(dsn, directory) as guard:
        with pytest.raises(ServerUnreachable), guard.trial(change(guard), "t1") as trial:
            trial.apply()
            own_server.kill()
        assert len(guard.journal.state.unfinished) == 1
    own_server.restart()
    assert seen(own_server.dsn, *TRIED) == TRIED, "what was written outlives the crash"
    with guarded(own_server.dsn, directory) as guard:
        undo_unfinished(guard.actuator, guard.journal)
    assert seen(own_server.dsn, *STOCK) == STOCK
    assert written(own_server) == []


def test_durability_is_refused_on_a_real_server_too(dsn, directory, guarded_server):
    with guarded(dsn, directory) as guard:
        for name in ("fsync", "full_page_writes", "synchronous_commit"):
            with (
                pytest.raises(ChangeRefused, match=f"{name} = off is refused"),
                guard.trial(change(guard, {name: False}), name),
            ):
                pass
    assert written(guarded_server) == []


def test_new_sessions_of_a_role_get_limits_and_lose_them_and_the_owners_change_stays(dsn, directory):
    """Nobody can look at what a role's sessions have but they: here it may log in."""
    by_hand(dsn, "ALTER ROLE application LOGIN")
    application = psycopg.conninfo.make_conninfo(dsn, user="application")
    names = ("lock_timeout", "idle_in_transaction_session_timeout", "work_mem")
    usual = {"lock_timeout": "3s", "idle_in_transaction_session_timeout": "0", "work_mem": "4MB"}
    candidate = role_candidate("postgres")
    with guarded(dsn, directory) as guard, psycopg.connect(application) as open_before:
        with guard.trial(change(guard, candidate), "t1") as trial:
            trial.apply()
            assert seen(application, *names) == dict(zip(names, ("2s", "10s", "16MB"), strict=True))
            assert open_before.execute("SHOW lock_timeout").fetchone() == ("3s",), "it keeps what it has"
            by_hand(dsn, "ALTER ROLE application IN DATABASE postgres SET lock_timeout = '7s'")
            trial.withdraw()
            assert seen(application, *names) == {**usual, "lock_timeout": "7s"}
            with pytest.raises(ChangeRefused, match="lock_timeout of role application in database postgres was cha"):
                trial.apply()
        by_hand(dsn, "ALTER ROLE application IN DATABASE postgres SET lock_timeout = '3s'")
        with guard.trial(change(guard, candidate), "t2") as trial:
            trial.confirm()
        (undone,) = rollback(guard)
        assert "lock_timeout of role application in database postgres = 3s" in str(undone)
        assert seen(application, *names) == usual


def test_what_somebody_else_gives_a_role_so_that_we_cannot_read_it_ends_the_trial(dsn, directory, monkeypatch):
    key = RoleSetting("lock_timeout", ROLE, "postgres").key
    with guarded(dsn, directory) as guard:

        def written_by_both(name, value, **more):
            done = PostgresTarget.write(guard.actuator, name, value, **more)
            by_hand(dsn, "ALTER ROLE application IN DATABASE postgres SET lock_timeout = '0x7D0'")
            return done

        monkeypatch.setattr(guard.actuator, "write", written_by_both)
        with (
            pytest.raises(ChangeRefused, match="was written, and cannot be read now"),
            guard.trial(change(guard, {key: 2000}), "t1") as trial,
        ):
            trial.apply()
        assert role_settings(dsn) == ["lock_timeout=0x7D0"]
        assert trial.foreign_changes == {key: "gone from this server"}
        assert not guard.journal.state.unfinished
    by_hand(dsn, "ALTER ROLE application IN DATABASE postgres SET lock_timeout = '3s'")


def test_a_role_that_is_renamed_meanwhile_is_told_to_be_gone(dsn, directory):
    """It keeps its limit, which nobody but its owner can know to be ours."""
    key = RoleSetting("lock_timeout", ROLE, "postgres").key
    with guarded(dsn, directory) as guard:
        with guard.trial(change(guard, {key: 2000}), "t1") as trial:
            trial.apply()
            by_hand(dsn, "ALTER ROLE application RENAME TO application_2")
        by_hand(dsn, "ALTER ROLE application_2 RENAME TO application")
        assert trial.foreign_changes == {key: "gone from this server"}
    by_hand(dsn, "ALTER ROLE application IN DATABASE postgres SET lock_timeout = '3s'")


def test_nobody_s_settings_are_changed_who_was_not_named_or_is_mighty_or_ours(dsn, directory):
    by_hand(dsn, "CREATE ROLE boss SUPERUSER", "CREATE ROLE other")
    try:
        with guarded(dsn, directory, roles=[ROLE, "boss", "postgres", "gone"]) as guard:
            for role, name, value, why in (
                ("other", "lock_timeout", 2000, "nobody has named that role"),
                ("boss", "lock_timeout", 2000, "a superuser"),
                ("postgres", "lock_timeout", 2000, "superuser"),
                ("gone", "lock_timeout", 2000, "no such thing"),
                (ROLE, "work_mem", 65536, "of a role we set only"),
                (ROLE, "lock_timeout", 0, "it may be from 100ms"),
                (ROLE, "lock_timeout", True, "it may be from 100ms"),
            ):
                key = RoleSetting(name, role, "postgres").key
                with pytest.raises(ChangeRefused, match=why), guard.trial(change(guard, {key: value}), role):
                    pass
            for role in ("boss", "postgres"):
                with pytest.raises(ChangeRefused, match="not changed"):
                    guard.actuator.write(RoleSetting("lock_timeout", role, "postgres").key, 2000)
        assert not guard.journal.state.trials
    finally:
        by_hand(dsn, "DROP ROLE boss, other")


def test_a_role_without_the_right_to_is_told_what_it_takes(dsn, directory):
    by_hand(dsn, "CREATE ROLE tuner LOGIN", "GRANT pg_monitor TO tuner")
    key = RoleSetting("lock_timeout", ROLE, "postgres").key
    try:
        with guarded(psycopg.conninfo.make_conninfo(dsn, user="tuner"), directory) as guard:
            with pytest.raises(ChangeRefused, match="may not give it settings") as refused:
                guard.review(change(guard, {key: 2000}).after)
            assert "CREATEROLE" in refused.value.next_step
            with pytest.raises(PrivilegeMissing, match="lock_timeout of role"):
                guard.actuator.write(key, 2000)
            by_hand(dsn, "ALTER ROLE tuner CREATEROLE")
            if guard.capabilities.major >= 16:
                assert not guard.actuator.role(ROLE).may_be_set
                by_hand(dsn, f"GRANT {ROLE} TO tuner WITH ADMIN OPTION")
            with guard.trial(change(guard, {key: 2000}), "t1") as trial:
                trial.apply()
                assert role_settings(dsn) == ["lock_timeout=2000"]
        assert role_settings(dsn) == ROLE_SETTINGS
    finally:
        by_hand(dsn, "DROP OWNED BY tuner", "DROP ROLE tuner")
