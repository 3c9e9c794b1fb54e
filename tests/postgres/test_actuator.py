"""Settings of a real server: read, written, refused, reloaded and put back, by a superuser and by lesser roles."""

import time
from dataclasses import replace

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from ml_postgres_optimization.errors import ChangeRefused, PrivilegeMissing, TargetError
from ml_postgres_optimization.knobs.knob import Setting
from ml_postgres_optimization.knobs.rendering import written_text
from ml_postgres_optimization.target.embedded import EmbeddedServer
from ml_postgres_optimization.target.postgres.actuator import PostgresActuator, same_value
from ml_postgres_optimization.target.postgres.capabilities import read_capabilities
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings, LastingConnection, connect

TUNER = 'tuner "x" ü'


class HurriedClock:
    """Real time, twenty times as fast: what takes 5 s at most takes 0.25 s."""

    def monotonic_seconds(self):
        return time.monotonic() * 20

    def sleep(self, seconds):
        time.sleep(seconds / 20)


@pytest.fixture(scope="module")
def tuned_server(binaries, module_folder, session_folder):
    library = {"shared_preload_libraries": "pg_stat_statements"} if binaries.has_library("pg_stat_statements") else {}
    with EmbeddedServer.start(
        module_folder,
        binaries=binaries,
        settings={"maintenance_work_mem": "32MB", "fsync": "off", **library},
        system_state=session_folder / "system",
    ) as server:
        with psycopg.connect(server.dsn, autocommit=True) as admin:
            admin.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(TUNER)))
        yield server


@pytest.fixture
def admin(tuned_server):
    """A superuser's connection; afterwards nothing of the test is left."""
    with psycopg.connect(tuned_server.dsn, autocommit=True) as admin:
        yield admin
        auto_conf(tuned_server).write_text("")
        admin.execute(sql.SQL("ALTER ROLE {} RESET ALL").format(sql.Identifier(TUNER)))
        admin.execute("ALTER ROLE postgres RESET ALL")
        admin.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(TUNER)))
        admin.execute("SELECT pg_reload_conf()")


@pytest.fixture
def actuator_for(tuned_server, admin):
    opened = []

    def actuator(user="postgres", **changed_capabilities):
        settings = ConnectionSettings.from_dsn(make_conninfo(tuned_server.dsn, user=user))
        with connect(settings) as connection:
            capabilities = replace(read_capabilities(connection), **changed_capabilities)
        session = LastingConnection(settings, "settings")
        opened.append(session)
        return PostgresActuator(settings, capabilities, session, clock=HurriedClock())

    yield actuator
    for session in opened:
        session.close()


@pytest.fixture
def actuator(actuator_for):
    return actuator_for()


@pytest.fixture
def tuner(admin, actuator_for):
    """An actuator of a role that may change three parameters and reload, and cannot see the files."""
    if admin.info.server_version < 150000:
        pytest.skip("parameters can be granted from PostgreSQL 15 on")
    tuner = sql.Identifier(TUNER)
    names = "work_mem, maintenance_work_mem, random_page_cost"
    admin.execute(sql.SQL(f"GRANT ALTER SYSTEM ON PARAMETER {names} TO {{}}").format(tuner))
    admin.execute(sql.SQL("GRANT EXECUTE ON FUNCTION pg_reload_conf() TO {}").format(tuner))
    return actuator_for(TUNER)


def auto_conf(server):
    return server.data_directory / "postgresql.auto.conf"


def written(server):
    """Return what stands in ``postgresql.auto.conf``, by name."""
    lines = (line for line in auto_conf(server).read_text().splitlines() if line and not line.startswith("#"))
    return {name: text.strip("'") for name, text in (line.split(" = ") for line in lines)}


def in_force(server, name, user="postgres"):
    with psycopg.connect(make_conninfo(server.dsn, user=user)) as fresh:
        return fresh.execute("SELECT setting FROM pg_settings WHERE name = %s", [name]).fetchone()[0]


# --- reading


def test_a_setting_has_its_type_unit_and_range_as_the_server_says(actuator):
    found = actuator.settings(
        ["work_mem", "jit", "random_page_cost", "wal_level", "cluster_name", "no_such", "client.x"]
    )
    assert found["work_mem"] == Setting(
        **{
            "name": "work_mem",
            "value": 4096,
            "kind": "integer",
            "unit": "kB",
            "context": "user",
            "source": "default",
        },
        **{"minimum": 64, "maximum": 2147483647, "boot_value": "4096"},
    )
    assert found["jit"].value is True and found["jit"].kind == "bool"
    assert found["random_page_cost"].value == 4.0 and isinstance(found["random_page_cost"].value, float)
    assert found["wal_level"].enumvals == ("minimal", "replica", "logical") and found["wal_level"].kind == "enum"
    assert found["cluster_name"].value == "" and found["cluster_name"].kind == "string"
    assert found.keys() == {"work_mem", "jit", "random_page_cost", "wal_level", "cluster_name"}


def test_every_setting_of_the_server_can_be_read(actuator, admin):
    names = [name for (name,) in admin.execute("SELECT name FROM pg_settings").fetchall()]
    assert len(actuator.settings(names)) == len(names) > 300


def test_the_limits_of_our_own_session_are_not_taken_for_the_server_s(actuator):
    found = actuator.settings(["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"])
    assert {setting.value for setting in found.values()} == {0}


def test_a_fresh_session_sees_what_was_set_for_its_role_just_now(actuator, admin):
    assert actuator.settings(["work_mem"])["work_mem"].source == "default"
    admin.execute("ALTER ROLE postgres SET work_mem = '8MB'")
    setting = actuator.settings(["work_mem"])["work_mem"]
    assert (setting.value, setting.source, setting.written_value) == (8192, "user", None)


def test_what_is_written_is_read_as_it_stands_there(actuator, tuned_server, admin):
    auto_conf(tuned_server).write_text("work_mem = 1MB\nWork_Mem = '8MB'\njit = off\n")
    admin.execute("SELECT pg_reload_conf()")
    found = actuator.settings(["work_mem", "jit", "maintenance_work_mem"])
    assert [found[name].written_value for name in ("work_mem", "jit", "maintenance_work_mem")] == ["8MB", "off", None]
    assert found["maintenance_work_mem"].source == "configuration file"


# --- writing


@pytest.mark.parametrize(
    ("name", "value", "seen"),
    [
        ("work_mem", 8192, "8192"),
        ("work_mem", 8192.0, "8192"),
        ("autovacuum_work_mem", 2048, "2048"),
        ("random_page_cost", 1.1, "1.1"),
        ("random_page_cost", 2, "2"),
        ("autovacuum_vacuum_scale_factor", 1e-05, "1e-05"),
        ("autovacuum_vacuum_cost_delay", 0.123456789, "0.123457"),
        ("jit", False, "off"),
        ("plan_cache_mode", "force_generic_plan", "force_generic_plan"),
        ("checkpoint_timeout", 600, "600"),
    ],
)
def test_a_written_value_is_in_force_after_the_reload_and_gone_after_restore(
    actuator, tuned_server, name, value, seen
):
    before = actuator.settings([name])[name]
    actuator.write(name, value)
    assert in_force(tuned_server, name) == written_text(before.value), "not before the reload"
    actuator.reload()
    after = actuator.settings([name])[name]
    assert in_force(tuned_server, name) == seen
    assert same_value(after.value, value) and after.written_value == written(tuned_server)[name]
    actuator.restore(name, before.written_value)
    actuator.reload()
    assert actuator.settings([name])[name] == before
    assert written(tuned_server) == {}


def test_text_is_put_back_as_it_stood(actuator, tuned_server, admin):
    admin.execute("ALTER SYSTEM SET work_mem = '8MB'")
    before = actuator.settings(["work_mem"])["work_mem"].written_value
    actuator.write("work_mem", 1024)
    actuator.write("work_mem", 2048)
    actuator.restore("work_mem", before)
    actuator.reload()
    assert before == "8MB" and written(tuned_server) == {"work_mem": "8MB"}
    assert in_force(tuned_server, "work_mem") == "8192"


def test_a_parameter_of_an_extension_has_a_dot(actuator, tuned_server, binaries):
    if not binaries.has_library("pg_stat_statements"):
        pytest.skip("these binaries come without contrib modules")
    actuator.write("pg_stat_statements.track", "all")
    actuator.reload()
    assert in_force(tuned_server, "pg_stat_statements.track") == "all"
    actuator.restore("pg_stat_statements.track", None)
    actuator.reload()
    assert in_force(tuned_server, "pg_stat_statements.track") == "top"


def test_a_restart_only_value_is_written_and_waits(actuator, tuned_server):
    actuator.write("max_connections", 101)
    actuator.reload()
    setting = actuator.settings(["max_connections"])["max_connections"]
    assert (setting.value, setting.pending_restart, setting.written_value) == (100, True, "101")
    actuator.restore("max_connections", None)
    actuator.reload()
    assert not actuator.settings(["max_connections"])["max_connections"].pending_restart


# --- refusing

REFUSED = [
    ("work_mem", 63, "work_mem = 63 was refused", "a value from 64 to 2147483647 (in units of kB)"),
    ("work_mem", True, "work_mem = on was refused", "a value from 64"),
    ("random_page_cost", -0.5, "random_page_cost = -0.5 was refused", "a value from 0 to"),
    ("random_page_cost", float("nan"), "random_page_cost = nan was refused", "a value from 0 to"),
    ("random_page_cost", float("inf"), "random_page_cost = inf was refused", "a value from 0 to"),
    ("jit", 8192, "jit = 8192 was refused", "of type bool"),
    ("plan_cache_mode", "'; DROP TABLE t; --", "was refused", "one of: auto, force_generic_plan, force_custom_plan"),
    ("block_size", 8192, "block_size = 8192 was refused", "cannot be set"),
    ("no_such_parameter", 1, "has no such parameter", "Check its name"),
    ("work_mem = '1GB'; --", 1, "has no such parameter", "Check its name"),
    ('work"mem', 1, "has no such parameter", "Check its name"),
    ("", 1, "has no such parameter", "Check its name"),
    ("shared_preload_libraries", "a,b", "holds text", "by hand"),
    ("archive_command", "rm -rf /", "holds text", "by hand"),
    ("search_path", "public", "holds text", "by hand"),
]


@pytest.mark.parametrize(("name", "value", "what", "next_step"), REFUSED, ids=[f"{n}={v}" for n, v, _, _ in REFUSED])
def test_a_wrong_change_is_refused_and_leaves_no_trace(actuator, tuned_server, name, value, what, next_step):
    before = auto_conf(tuned_server).read_text()
    with pytest.raises(ChangeRefused) as refused:
        actuator.write(name, value)
    assert what in refused.value.what and next_step in refused.value.next_step
    assert str(refused.value).count("\n") == 1 and refused.value.exit_code == 4
    assert auto_conf(tuned_server).read_text() == before


def test_a_list_is_not_put_back_either(actuator):
    with pytest.raises(ChangeRefused, match="holds text"):
        actuator.restore("shared_preload_libraries", "a,b")


def test_who_else_manages_the_server_is_not_crossed_but_what_was_ours_is_taken_back(
    actuator, actuator_for, tuned_server
):
    actuator.write("work_mem", 8192)
    managed = actuator_for(managed_by="Patroni")
    with pytest.raises(ChangeRefused, match="Patroni manages"):
        managed.write("work_mem", 1024)
    managed.restore("work_mem", None)
    assert written(tuned_server) == {}


def test_what_the_role_overrides_is_not_in_force(actuator, admin):
    admin.execute("ALTER ROLE postgres SET work_mem = '1MB'")
    actuator.write("work_mem", 8192)
    with pytest.raises(
        ChangeRefused, match=r"work_mem = 8192 was written, but a fresh session has 1024 \(source: user\)"
    ):
        actuator.reload()
    actuator.restore("work_mem", None)
    actuator.reload()


def test_what_the_server_adjusts_is_not_taken_for_what_was_asked(actuator):
    actuator.write("autovacuum_work_mem", 1)
    with pytest.raises(ChangeRefused, match=r"a fresh session has (64|1024) "):
        actuator.reload()


@pytest.mark.parametrize(
    ("line", "error"),
    [("work_mem =", "syntax error"), ("no_such_parameter = 1", "unrecognized configuration parameter")],
)
def test_a_file_that_the_server_cannot_read_is_named_and_not_reloaded(actuator, tuned_server, line, error):
    actuator.write("work_mem", 8192)
    with auto_conf(tuned_server).open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(ChangeRefused, match=f"not reloaded: .*postgresql.auto.conf, line 4.*{error}"):
        actuator.reload()
    assert in_force(tuned_server, "work_mem") == "4096"


def test_a_value_that_was_broken_behind_our_back_is_named(actuator, tuned_server):
    actuator.write("work_mem", 8192)
    with auto_conf(tuned_server).open("a") as file:
        file.write("work_mem = 'much'\nmaintenance_work_mem = 'much'\n")
    with pytest.raises(ChangeRefused, match=r"line 4 \(work_mem\): setting could not be applied"):
        actuator.reload()


def test_another_s_broken_value_does_not_keep_ours_out(actuator, tuned_server):
    auto_conf(tuned_server).write_text("maintenance_work_mem = 'much'\n")
    actuator.write("work_mem", 8192)
    actuator.reload()
    assert in_force(tuned_server, "work_mem") == "8192"


def test_alter_system_on_a_broken_file_says_how_to_mend_it(actuator, tuned_server):
    auto_conf(tuned_server).write_text("work_mem =\n")
    with pytest.raises(TargetError, match="could not parse") as refused:
        actuator.write("work_mem", 8192)
    assert "ALTER SYSTEM RESET ALL" in refused.value.next_step


@pytest.mark.pg(">= 17")
def test_a_server_that_forbids_alter_system(own_server):
    own_server.restart({"allow_alter_system": "off"})
    settings = ConnectionSettings.from_dsn(own_server.dsn)
    with connect(settings) as connection:
        capabilities = read_capabilities(connection)
    with LastingConnection(settings, "settings") as session, pytest.raises(ChangeRefused, match="not allowed"):
        PostgresActuator(settings, capabilities, session).write("work_mem", 8192)


def test_a_reload_that_was_refused_leaves_nothing_behind_for_the_next(actuator, admin, tuned_server):
    admin.execute("ALTER ROLE postgres SET work_mem = '1MB'")
    actuator.write("work_mem", 8192)
    with pytest.raises(ChangeRefused):
        actuator.reload()
    actuator.write("jit", False)
    actuator.reload()
    assert in_force(tuned_server, "jit") == "off"


# --- without superuser


def test_a_role_with_grants_changes_those_parameters_only(tuner, tuned_server):
    tuner.write("work_mem", 8192)
    tuner.reload()
    assert in_force(tuned_server, "work_mem") == "8192"
    with pytest.raises(PrivilegeMissing, match="may not set jit by ALTER SYSTEM") as refused:
        tuner.write("jit", False)
    assert refused.value.next_step == 'As a superuser: GRANT ALTER SYSTEM ON PARAMETER jit TO "tuner ""x"" ü";'
    tuner.restore("work_mem", None)
    tuner.reload()
    assert in_force(tuned_server, "work_mem") == "4096"


@pytest.mark.parametrize(
    ("origin", "name", "value_in_force", "left_over"),
    [
        ("default", "work_mem", "4096", {}),
        ("postgresql.conf", "maintenance_work_mem", "32768", {"maintenance_work_mem": "32768"}),
        ("postgresql.auto.conf", "work_mem", "8192", {"work_mem": "8192"}),
    ],
)
def test_without_seeing_the_files_the_value_in_force_comes_back(
    tuner, tuned_server, admin, origin, name, value_in_force, left_over
):
    if origin == "postgresql.auto.conf":
        admin.execute("ALTER SYSTEM SET work_mem = '8MB'")
        admin.execute("SELECT pg_reload_conf()")
        wait_until(lambda: in_force(tuned_server, "work_mem") == "8192")
    before = tuner.settings([name])[name]
    tuner.write(name, 1024)
    tuner.reload()
    assert in_force(tuned_server, name) == "1024"
    tuner.restore(name, before.written_value)
    tuner.reload()
    assert in_force(tuned_server, name) == value_in_force
    assert written(tuned_server) == left_over
    assert tuner.settings([name])[name].value == before.value


def test_without_seeing_the_files_what_hides_them_is_not_changed(tuner, admin, tuned_server):
    admin.execute(sql.SQL("ALTER ROLE {} SET work_mem = '1MB'").format(sql.Identifier(TUNER)))
    with pytest.raises(ChangeRefused, match=r"comes from elsewhere \(user\)") as refused:
        tuner.write("work_mem", 8192)
    assert "pg_file_settings" in refused.value.next_step
    assert written(tuned_server) == {}


def test_a_monitor_knows_which_file_it_was(tuner, actuator_for, admin):
    admin.execute(sql.SQL("GRANT pg_monitor TO {}").format(sql.Identifier(TUNER)))
    try:
        setting = actuator_for(TUNER).settings(["maintenance_work_mem"])["maintenance_work_mem"]
    finally:
        admin.execute(sql.SQL("REVOKE pg_monitor FROM {}").format(sql.Identifier(TUNER)))
    assert (setting.source, setting.written_value) == ("configuration file", None)


def test_a_role_without_any_grant_is_told_what_it_needs(actuator_for, admin):
    with pytest.raises(PrivilegeMissing, match="may not set work_mem by ALTER SYSTEM") as refused:
        actuator_for(TUNER).write("work_mem", 8192)
    needed = "only a superuser" if admin.info.server_version < 150000 else "GRANT ALTER SYSTEM ON PARAMETER work_mem"
    assert needed in refused.value.next_step
    with pytest.raises(PrivilegeMissing, match="may not reload the configuration"):
        actuator_for(TUNER).reload()


# --- in trouble


def test_settings_can_be_taken_back_when_all_connections_are_taken(own_server):
    own_server.restart({"max_connections": "5", "superuser_reserved_connections": "0", "max_wal_senders": "0"})
    settings = ConnectionSettings.from_dsn(own_server.dsn)
    with connect(settings) as connection:
        capabilities = read_capabilities(connection)
    with LastingConnection(settings, "settings") as session:
        actuator = PostgresActuator(settings, capabilities, session)
        actuator.write("work_mem", 8192)
        actuator.reload()
        crowd = []
        with pytest.raises(psycopg.OperationalError, match="too many clients"):
            while len(crowd) < 10:
                crowd.append(psycopg.connect(own_server.dsn))
        actuator.restore("work_mem", None)
        actuator.reload()
        assert actuator.settings(["work_mem"])["work_mem"].value == 4096
        for other in crowd:
            other.close()


def test_a_restart_between_writing_and_reloading_loses_nothing(own_server):
    settings = ConnectionSettings.from_dsn(own_server.dsn)
    with connect(settings) as connection:
        capabilities = read_capabilities(connection)
    with LastingConnection(settings, "settings") as session:
        actuator = PostgresActuator(settings, capabilities, session)
        actuator.write("work_mem", 8192)
        own_server.restart()
        actuator.reload()
        assert actuator.settings(["work_mem"])["work_mem"].value == 8192


def wait_until(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
