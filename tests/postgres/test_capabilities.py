"""What a real server says that it is and lets us do, to a superuser and to lesser roles."""

from contextlib import contextmanager
from datetime import UTC, datetime

import psycopg
import pytest
from hand_started import PATRONI, postmaster, started_with
from protected_trial import until
from psycopg import sql

from ml_postgres_optimization.errors import ReadOnlyServer
from ml_postgres_optimization.target.capabilities import Capabilities
from ml_postgres_optimization.target.embedded.account import server_account
from ml_postgres_optimization.target.postgres.capabilities import (
    clock_ahead_seconds,
    read_capabilities,
    require_writable_primary,
)
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings, connect
from ml_postgres_optimization.telemetry import SystemClock, VirtualClock


def capabilities_of(dsn: str) -> Capabilities:
    with connect(ConnectionSettings.from_dsn(dsn)) as connection:
        return read_capabilities(connection)


@contextmanager
def as_superuser(dsn: str):
    with psycopg.connect(dsn, autocommit=True) as admin:
        yield lambda statement, *names: admin.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def role_of(dsn: str) -> str:
    return ConnectionSettings.from_dsn(dsn).parameters["user"]


def test_a_superuser_may_do_everything(server, database):
    found = capabilities_of(database)
    assert found.version_num == server.version_num and found.major == server.version_num // 10_000
    assert found.version.startswith(f"{found.major}.")
    assert (found.database, found.role) == (ConnectionSettings.from_dsn(database).parameters["dbname"], "postgres")
    assert found.is_superuser and found.is_owner and found.is_monitor and found.settings_visible
    assert found.may_alter_system is True and found.may_reload and found.alter_system_allowed
    assert found.may_change("work_mem") and found.managed_by is None
    assert not found.in_recovery and not found.read_only
    require_writable_primary(found)


def test_an_owner_without_superuser_may_observe_itself_only(owner):
    found = capabilities_of(owner)
    assert found.is_owner
    assert not (found.is_superuser or found.is_monitor or found.settings_visible or found.may_reload)
    assert found.may_alter_system == frozenset() and not found.may_change("work_mem")
    require_writable_primary(found)


def test_another_s_database_is_not_ours(server, owner):
    found = capabilities_of(str(psycopg.conninfo.make_conninfo(owner, dbname="postgres")))
    assert not found.is_owner


def test_a_member_of_the_owner_owns_too(database, owner):
    with as_superuser(database) as execute:
        execute("CREATE ROLE {} LOGIN IN ROLE {}", "member_of_owner", role_of(owner))
        try:
            found = capabilities_of(psycopg.conninfo.make_conninfo(owner, user="member_of_owner"))
        finally:
            execute("DROP ROLE {}", "member_of_owner")
    assert found.role == "member_of_owner" and found.is_owner


def test_a_monitor_sees_the_sessions_of_others_and_the_libraries(server, database, owner):
    with as_superuser(database) as execute:
        execute("GRANT pg_monitor TO {}", role_of(owner))
    found = capabilities_of(owner)
    assert found.is_monitor
    assert found.preloaded == capabilities_of(database).preloaded
    assert not found.settings_visible, "pg_monitor does not include pg_file_settings"


def test_the_files_are_visible_by_a_grant_on_both_the_view_and_its_function(database, owner):
    with as_superuser(database) as execute:
        for grant in (
            "GRANT pg_monitor TO {}",
            "GRANT SELECT ON pg_file_settings TO {}",
            "GRANT EXECUTE ON FUNCTION pg_show_all_file_settings() TO {}",
        ):
            assert not capabilities_of(owner).settings_visible
            execute(grant, role_of(owner))
    assert capabilities_of(owner).settings_visible


@pytest.mark.pg(">= 15")
def test_granted_parameters_may_be_changed_and_no_others(database, owner):
    with as_superuser(database) as execute:
        execute("GRANT ALTER SYSTEM ON PARAMETER work_mem, max_wal_size TO {}", role_of(owner))
        assert not capabilities_of(owner).may_change("work_mem"), "not without pg_reload_conf()"
        execute("GRANT EXECUTE ON FUNCTION pg_reload_conf() TO {}", role_of(owner))
        found = capabilities_of(owner)
        execute("REVOKE ALTER SYSTEM ON PARAMETER work_mem, max_wal_size FROM {}", role_of(owner))
    assert found.may_alter_system == frozenset({"work_mem", "max_wal_size"})
    assert found.may_change("work_mem") and not found.may_change("archive_command")
    assert capabilities_of(owner).may_alter_system == frozenset()


@pytest.mark.pg(">= 15")
def test_a_parameter_granted_to_everybody_or_to_a_role_that_we_are_in_counts(database, owner):
    with as_superuser(database) as execute:
        execute("GRANT ALTER SYSTEM ON PARAMETER work_mem TO PUBLIC")
        execute("GRANT ALTER SYSTEM ON PARAMETER jit TO pg_monitor")
        execute("GRANT pg_monitor TO {}", role_of(owner))
        found = capabilities_of(owner)
        execute("REVOKE ALTER SYSTEM ON PARAMETER work_mem FROM PUBLIC")
        execute("REVOKE ALTER SYSTEM ON PARAMETER jit FROM pg_monitor")
    assert found.may_alter_system == frozenset({"work_mem", "jit"})


@pytest.mark.pg(">= 17")
def test_alter_system_can_be_forbidden_to_all(own_server):
    own_server.restart({"allow_alter_system": "off"})
    found = capabilities_of(own_server.dsn)
    assert not found.alter_system_allowed and not found.may_change("work_mem")


def test_extensions_are_found_in_whatever_schema(database):
    with as_superuser(database) as execute:
        execute("CREATE SCHEMA {}", 'odd "schema"')
        execute("DROP EXTENSION plpgsql")
        execute("CREATE EXTENSION plpgsql SCHEMA pg_catalog")
    found = capabilities_of(database)
    assert found.extensions["plpgsql"] == ("1.0", "pg_catalog")
    assert "plpgsql" in found.available_extensions and not found.has_extension("nosuch")


def test_an_extension_in_a_schema_of_its_own(database):
    if "pg_stat_statements" not in capabilities_of(database).available_extensions:
        pytest.skip("these binaries come without contrib modules")
    with as_superuser(database) as execute:
        execute("CREATE SCHEMA {}", 'odd "schema"')
        execute("CREATE EXTENSION pg_stat_statements SCHEMA {}", 'odd "schema"')
    version, schema = capabilities_of(database).extensions["pg_stat_statements"]
    assert schema == 'odd "schema"' and version.startswith("1.")


def test_preloaded_libraries_are_told_apart(server, database, binaries):
    expected = ("pg_stat_statements",) if binaries.has_library("pg_stat_statements") else ()
    assert capabilities_of(database).preloaded == expected


def test_the_identifier_is_that_of_the_cluster_for_every_role_and_database(server, database, owner):
    with psycopg.connect(server.dsn) as admin:
        (expected,) = admin.execute("SELECT system_identifier::text FROM pg_control_system()").fetchone()
    assert {capabilities_of(dsn).system_identifier for dsn in (server.dsn, database, owner)} == {expected}


def test_without_the_control_file_the_identifier_stands_for_the_address(database, owner):
    with as_superuser(database) as execute:
        execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
    first, second = capabilities_of(owner).system_identifier, capabilities_of(owner).system_identifier
    assert first == second and first.startswith("at-") and first.replace("-", "").isalnum()
    assert capabilities_of(database).system_identifier.isdigit()


def test_a_role_that_is_read_only_cannot_tune(database, owner):
    with as_superuser(database) as execute:
        execute("ALTER ROLE {} SET default_transaction_read_only = on", role_of(owner))
    found = capabilities_of(owner)
    assert found.read_only and not found.in_recovery
    with pytest.raises(ReadOnlyServer, match="default_transaction_read_only") as refused:
        require_writable_primary(found)
    assert str(refused.value).count("\n") == 1


SERVICES = [
    ("rds_superuser", "rdsadmin", "Amazon RDS"),
    ("cloudsqlsuperuser", "cloudsqladmin", "Google Cloud SQL"),
    ("azure_pg_admin", "azuresu", "Azure Database for PostgreSQL"),
    ("supabase_auth_admin", "supabase_admin", "Supabase"),
]


@pytest.mark.parametrize(("role", "kept", "manager"), SERVICES)
def test_a_managed_service_is_known_by_its_two_roles_and_not_by_one_that_came_with_a_dump(
    database, role, kept, manager
):
    with as_superuser(database) as execute:
        try:
            execute("CREATE ROLE {}", role)
            assert capabilities_of(database).managed_by is None
            execute("CREATE ROLE {}", kept)
            assert capabilities_of(database).managed_by is None, "no service keeps it as less than a superuser"
            execute("ALTER ROLE {} SUPERUSER", kept)
            found = capabilities_of(database)
        finally:
            execute("DROP ROLE IF EXISTS {}", role)
            execute("DROP ROLE IF EXISTS {}", kept)
    assert found.managed_by == manager and not found.may_change("work_mem")
    assert capabilities_of(database).managed_by is None


@pytest.mark.parametrize(
    ("setting", "manager"),
    [
        ("rds.extensions", "Amazon RDS"),
        ("cloudsql.iam_authentication", "Google Cloud SQL"),
        ("azure.extensions", "Azure Database for PostgreSQL"),
    ],
)
def test_a_managed_service_is_known_by_a_setting_of_its_own(database, owner, setting, manager):
    with as_superuser(database) as execute:
        name = ConnectionSettings.from_dsn(database).parameters["dbname"]
        execute(f"ALTER DATABASE {{}} SET {setting} = 'on'", name)
    assert capabilities_of(owner).managed_by == capabilities_of(database).managed_by == manager


def test_aurora_is_known_by_its_function(own_server):
    with as_superuser(own_server.dsn) as execute:
        execute("CREATE FUNCTION pg_catalog.aurora_version() RETURNS text LANGUAGE sql AS $$ SELECT '17.4.0' $$")
    assert capabilities_of(own_server.dsn).managed_by == "Amazon Aurora"


def test_cloudnativepg_is_known_by_its_archiver(own_server):
    command = "/controller/manager wal-archive --log-destination /controller/log/postgres.json %p"
    with started_with(own_server, {"archive_mode": "on", "archive_command": command}) as dsn:
        assert capabilities_of(dsn).managed_by == "CloudNativePG"


def test_patroni_is_known_by_the_file_that_it_includes(own_server):
    (own_server.data_directory / "postgresql.base.conf").write_text("work_mem = '5MB'\n")
    (own_server.data_directory / "postgresql.base.conf").chmod(0o644)
    with (own_server.data_directory / "postgresql.conf").open("a") as file:
        file.write("include 'postgresql.base.conf'\n")
    with as_superuser(own_server.dsn) as execute:
        execute("SELECT pg_reload_conf()")
    until(lambda: capabilities_of(own_server.dsn).managed_by == "Patroni")


def test_cloudnativepg_is_known_by_its_setting(database):
    with as_superuser(database) as execute:
        execute(
            "ALTER DATABASE {} SET cnpg.config_sha256 = 'ab12'",
            ConnectionSettings.from_dsn(database).parameters["dbname"],
        )
    assert capabilities_of(database).managed_by == "CloudNativePG"


def test_the_clocks_of_one_machine_agree_and_a_wrong_one_is_seen(database):
    settings = ConnectionSettings.from_dsn(database)
    assert abs(clock_ahead_seconds(settings, SystemClock())) < 0.5
    long_ago = VirtualClock(datetime(2020, 1, 1, tzinfo=UTC))
    assert clock_ahead_seconds(settings, long_ago) > 5 * 365 * 86400


@pytest.mark.parametrize(("options", "manager"), [(PATRONI, "Patroni"), ({"max_connections": "50"}, None)])
def test_patroni_is_known_by_what_it_pins_on_the_command_line(own_server, options, manager):
    with started_with(own_server, options) as dsn:
        found = capabilities_of(dsn)
        assert found.managed_by == manager


def test_a_standby_cannot_be_tuned(own_server, folder):
    backup = own_server.bin_directory / "pg_basebackup"
    if not backup.exists():
        pytest.skip("these binaries come without pg_basebackup")
    account, standby = server_account(), folder / "standby"
    standby.mkdir()
    account.give(standby)
    account.run([backup, "-D", standby, "-d", own_server.dsn, "-R", "-c", "fast"]).check_returncode()
    sockets = ConnectionSettings.from_dsn(own_server.dsn).parameters["host"]
    with postmaster(own_server.bin_directory, standby, sockets, 5998, {"fsync": "off"}):
        found = capabilities_of(psycopg.conninfo.make_conninfo(own_server.dsn, port=5998))
        with pytest.raises(ReadOnlyServer):
            connect(
                ConnectionSettings.from_dsn(own_server.dsn).replaced(port=5998, target_session_attrs="read-write")
            )
    assert found.in_recovery and found.read_only
    assert found.system_identifier == capabilities_of(own_server.dsn).system_identifier
    with pytest.raises(ReadOnlyServer, match="standby"):
        require_writable_primary(found)
