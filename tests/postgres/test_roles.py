"""``setup --roles`` on a real server: what it prints runs, what it makes suffices, and nothing more is granted."""

import os
import subprocess

import psycopg
import pytest
from command_line import CommandLine, by_hand, clean_environment, rows
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ml_postgres_optimization.interfaces.workbench import load
from ml_postgres_optimization.target.postgres.roles import ADVISE, OBSERVE, ROLES, TUNE

LONG = ("\u00fcn\u00efc\u00f6d\u00e9; DROP %s {} \\ ' \" \n" + "x" * 63)[:40]
GRANTED = (
    "SELECT parname FROM pg_parameter_acl, aclexplode(paracl) "
    "WHERE grantee = (SELECT oid FROM pg_roles WHERE rolname = %s) ORDER BY 1"
)


def drop_roles(dsn, databases):
    """Take the roles away from databases and server, with what is granted to them."""
    for name in databases:
        with psycopg.connect(make_conninfo(dsn, dbname=name), autocommit=True) as connection:
            found = rows(dsn, "SELECT rolname FROM pg_roles WHERE rolname = ANY (%s)", [*ROLES, "tuner"])
            for (role,) in found:
                connection.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(sql.Identifier(role)))
    for role in ("tuner", *reversed(ROLES)):
        by_hand(dsn, sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role)))


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path):
    clean_environment(monkeypatch, tmp_path / "home")
    monkeypatch.setattr(load, "CAPACITY_SECONDS", 0.5)
    return CommandLine(capsys, tmp_path / "home")


@pytest.fixture
def named(server, cli):
    """A fresh database of whatever name, and the roles gone after it."""
    made = []

    def name(database):
        by_hand(server.dsn, sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
        made.append(database)
        cli.dsn = make_conninfo(server.dsn, dbname=database)
        return cli.dsn

    yield name
    drop_roles(server.dsn, made)
    for database in made:
        by_hand(server.dsn, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(database)))


@pytest.fixture
def shop(named):
    """The DSN of a superuser on a database that has the roles."""
    return named("roles_shop")


def as_role(dsn, role):
    return make_conninfo(dsn, user=role)


def attributes(dsn):
    query = (
        "SELECT rolname, rolcanlogin, rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls, "
        "rolconnlimit > 0, rolconfig IS NOT NULL FROM pg_roles WHERE rolname = ANY (%s) ORDER BY rolname"
    )
    return rows(dsn, query, list(ROLES))


def test_the_roles_can_log_in_but_have_no_password_and_no_attribute_of_power(cli, shop):
    ended = cli("setup", "--roles").done()
    assert "\\password genesis_tune" in ended.out and "GRANT" not in ended.out.split("Not granted")[0]
    assert attributes(shop) == [(name, True, False, True, True) for name in sorted(ROLES)]
    assert rows(shop, "SELECT rolpassword FROM pg_authid WHERE rolname = ANY (%s)", list(ROLES)) == [(None,)] * 3


def state_of(dsn):
    """Return what there is of roles, owners and rights."""
    return [
        attributes(dsn),
        rows(dsn, "SELECT roleid::regrole, member::regrole, admin_option FROM pg_auth_members ORDER BY 1, 2"),
        rows(dsn, "SELECT nspname, nspowner, nspacl::text FROM pg_namespace ORDER BY 1"),
        rows(dsn, "SELECT oid::regclass::text, relowner, relacl::text FROM pg_class ORDER BY 1"),
        rows(dsn, "SELECT oid::regprocedure::text, proowner, proacl::text FROM pg_proc ORDER BY 1"),
        rows(dsn, "SELECT datname, datacl::text FROM pg_database ORDER BY 1"),
        rows(dsn, "SELECT setdatabase, setrole, setconfig FROM pg_db_role_setting ORDER BY 1, 2"),
    ]


def test_what_a_lesser_role_has_made_does_not_come_to_run_as_the_role_that_tunes(cli, shop, server):
    lesser = f"lesser_{os.getpid()}"
    by_hand(
        shop,
        f"CREATE ROLE {lesser} LOGIN",
        f"CREATE SCHEMA genesis AUTHORIZATION {lesser}",
        "COMMENT ON SCHEMA genesis IS 'genesis-pg'",
    )
    by_hand(
        as_role(shop, lesser),
        "CREATE FUNCTION genesis.planted(text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER "
        "AS 'BEGIN EXECUTE $1; END'",
    )
    try:
        cli("setup", "--roles").is_refused(3, f"role {lesser} has made", "genesis-pg uninstall")
        assert attributes(shop) == []
    finally:
        by_hand(shop, "DROP SCHEMA genesis CASCADE", f"DROP ROLE {lesser}")


def test_doing_it_twice_changes_nothing(cli, shop, server):
    first = cli("setup", "--roles", "--json").done().document
    before = state_of(shop)
    again = cli("setup", "--roles", "--json").done().document
    assert first["made"] == list(ROLES) and again["made"] == [] == again["revoked"]
    assert state_of(shop) == before


def test_a_dry_run_makes_nothing_and_what_it_prints_runs_in_psql(cli, named, psql):
    dsn = named(LONG)
    script = cli("setup", "--roles", "--dry-run").done().out
    assert attributes(dsn) == []
    subprocess.run(
        [psql, "-X", "-v", "ON_ERROR_STOP=1", dsn], input=script, text=True, check=True, capture_output=True
    )
    assert [name for name, *_ in attributes(dsn)] == sorted(ROLES)
    assert cli("setup", "--roles", "--json").done().document["made"] == []


@pytest.mark.pg(">= 15")
def test_exactly_the_knobs_of_the_catalogue_are_granted(cli, shop):
    cli("setup", "--roles").done()
    granted = {name for (name,) in rows(shop, GRANTED, TUNE)}
    assert {"work_mem", "max_wal_size", "checkpoint_timeout"} < granted
    assert not granted & {"shared_buffers", "fsync", "full_page_writes", "synchronous_commit", "archive_command"}
    assert not any(name.endswith(("_libraries", "_command", "_program")) for name in granted)
    assert rows(shop, GRANTED, OBSERVE) == rows(shop, GRANTED, ADVISE) == []
    for refused in ("archive_command = ''", "fsync = off", "shared_preload_libraries = ''"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            by_hand(as_role(shop, TUNE), f"ALTER SYSTEM SET {refused}")


@pytest.mark.pg(">= 15")
def test_what_is_no_longer_wanted_is_revoked_and_what_needs_a_restart_is_left(cli, shop):
    cli("setup", "--roles").done()
    by_hand(
        shop,
        f"GRANT ALTER SYSTEM ON PARAMETER fsync, shared_buffers TO {TUNE}",
        f"REVOKE ALTER SYSTEM ON PARAMETER work_mem FROM {TUNE}",
    )
    ended = cli("setup", "--roles").done()
    assert "Revoked, as no longer tuned: fsync." in ended.out
    granted = {name for (name,) in rows(shop, GRANTED, TUNE)}
    assert "fsync" not in granted and {"work_mem", "shared_buffers"} < granted


@pytest.mark.pg("< 15")
def test_before_15_it_is_said_that_no_setting_can_be_granted(cli, shop):
    ended = cli("setup", "--roles", "--json").done().document
    assert any("lets only superusers change settings" in note for note in ended["notes"])
    assert not any("ON PARAMETER" in statement for statement in ended["statements"])


def test_a_role_of_that_name_that_is_not_ours_is_left_alone(cli, shop):
    by_hand(shop, f"CREATE ROLE {TUNE}")
    cli("setup", "--roles").is_refused(3, "was not made by genesis-pg", "COMMENT ON ROLE")
    assert attributes(shop) == [(TUNE, False, False, False, False)]
    by_hand(shop, f"COMMENT ON ROLE {TUNE} IS 'genesis-pg'")
    cli("setup", "--roles").done()


def test_who_may_not_make_roles_is_told_to_have_it_run(cli, shop):
    by_hand(shop, "CREATE ROLE tuner LOGIN")
    cli.dsn = as_role(shop, "tuner")
    cli("setup", "--roles").is_refused(3, "setup --roles --dry-run")
    assert "CREATE ROLE" in cli("setup", "--roles", "--dry-run").done().out


def test_the_administrator_of_a_managed_service_makes_them_without_a_superuser(cli, shop):
    by_hand(
        shop,
        "CREATE ROLE tuner LOGIN CREATEROLE",
        "GRANT pg_monitor TO tuner WITH ADMIN OPTION",
        "GRANT CONNECT, CREATE ON DATABASE roles_shop TO tuner WITH GRANT OPTION",
        "ALTER DATABASE roles_shop SET rds.extensions = 'none'",
    )
    cli.dsn = as_role(shop, "tuner")
    for made in (list(ROLES), []):
        ended = cli("setup", "--roles", "--json").done().document
        assert ended["made"] == made and "Amazon RDS manages the settings" in ended["notes"][0]
        assert not any("ON PARAMETER" in statement or "pg_file" in statement for statement in ended["statements"])
    cli.dsn = as_role(shop, TUNE)
    cli("setup").done()
    assert cli("optimize", "--dry-run", "--json").done().document["way"]
    cli.dsn = as_role(shop, "tuner")
    assert cli("setup", "--roles", "--json").done().document["made"] == []


def test_a_schema_that_a_superuser_made_becomes_the_tuners(cli, shop):
    cli("setup").done()
    cli("setup", "--roles").done()
    owners = (
        "SELECT DISTINCT pg_get_userbyid(owner) FROM (SELECT relowner FROM pg_class "
        "WHERE relnamespace = 'genesis'::regnamespace UNION SELECT proowner FROM pg_proc "
        # constructors of ranges, and on older minor versions types of multiranges, stay with their maker
        "WHERE pronamespace = 'genesis'::regnamespace AND prosrc !~ '^(multi)?range_constructor' "
        "UNION SELECT typowner FROM pg_type "
        "WHERE typnamespace = 'genesis'::regnamespace AND typname !~ 'multirange' "
        "UNION SELECT nspowner FROM pg_namespace WHERE nspname = 'genesis') AS all_of_it (owner)"
    )
    assert rows(shop, owners) == [(TUNE,)]
    cli.dsn = as_role(shop, TUNE)
    cli("setup").done()


def test_who_observes_reads_and_changes_nothing(cli, shop):
    cli("setup", "--roles").done()
    cli.dsn = as_role(shop, TUNE)
    cli("setup").done()
    cli.dsn = as_role(shop, OBSERVE)
    for words in (("status",), ("history",), ("explain",), ("export",), ("doctor",)):
        cli(*words).done(0, 1)
    for refused in (
        "UPDATE genesis.settings SET retention_days = 1",
        "CREATE SCHEMA mine",
        "ALTER SYSTEM SET work_mem = '8MB'",
        "SELECT pg_reload_conf()",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            by_hand(cli.dsn, refused)
    cli.dsn = as_role(shop, ADVISE)
    assert cli("optimize", "--dry-run", "--json").done().document["settings"]
    cli("train").done(1)
    for refused in (
        "ALTER SYSTEM SET work_mem = '8MB'",
        # what is recorded there is what rollback puts in force
        "UPDATE genesis.configuration_history SET value = '0'",
        "INSERT INTO genesis.journal DEFAULT VALUES",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            by_hand(cli.dsn, refused)


def test_doing_it_again_takes_back_what_who_advises_could_write(cli, shop):
    cli("setup").done()
    cli("setup", "--roles").done()
    by_hand(
        shop,
        f"GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA genesis TO {ADVISE}",
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {TUNE} IN SCHEMA genesis GRANT INSERT, UPDATE ON TABLES TO {ADVISE}",
    )
    cli("setup", "--roles").done()
    by_hand(as_role(shop, TUNE), "CREATE TABLE genesis.later ()")
    tables = (
        "SELECT relname FROM pg_class WHERE relnamespace = 'genesis'::regnamespace AND relkind IN ('r', 'p') AND "
    )
    assert rows(shop, tables + "has_table_privilege(%s, oid, 'INSERT, UPDATE, DELETE')", ADVISE) == []
    assert rows(shop, tables + "NOT has_table_privilege(%s, oid, 'SELECT')", ADVISE) == []


def test_the_roles_wait_for_no_table_that_is_in_use(cli, shop):
    cli("setup").done()
    statements = cli("setup", "--roles", "--dry-run", "--json").done().document["statements"]
    assert statements[0].endswith("SET LOCAL lock_timeout = '500ms';")
    with psycopg.connect(shop) as busy:
        busy.execute("LOCK TABLE genesis.operations_live IN ROW EXCLUSIVE MODE")
        with psycopg.connect(shop) as other, pytest.raises(psycopg.errors.LockNotAvailable):
            for statement in statements:
                other.execute(statement, prepare=False)


def test_a_retention_is_not_of_the_roles(cli, shop):
    cli("setup", "--roles", "--retention-days", "3").is_refused(2, "--retention-days")
    assert conninfo_to_dict(shop)["dbname"] == "roles_shop"
