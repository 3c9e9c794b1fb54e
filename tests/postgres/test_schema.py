"""Schema genesis: made, upgraded and removed, whole or not at all."""

import re
import subprocess
import threading
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ml_postgres_optimization.errors import PrivilegeMissing, ReadOnlyServer, SchemaForeign, SchemaNewer, TargetError
from ml_postgres_optimization.target.postgres import schema
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings, connect
from ml_postgres_optimization.target.postgres.queries import read_query
from ml_postgres_optimization.target.postgres.schema import (
    LATEST_VERSION,
    UPGRADES,
    in_order,
    install_schema,
    require_schema,
    schema_state,
    setup_script,
    uninstall_schema,
)

SQL = Path(schema.__file__).parent / "sql"

FINGERPRINT = """
    SELECT 'relation', relname, relkind::text, pg_get_userbyid(relowner), pg_get_expr(relpartbound, pg_class.oid)
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
    UNION ALL
    SELECT 'column', attrelid::regclass::text, attname, format_type(atttypid, atttypmod), attnotnull::text
    FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname = 'genesis' AND attnum > 0
    UNION ALL
    SELECT 'function', oid::regprocedure::text, md5(pg_get_functiondef(oid)), proacl::text, NULL
    FROM pg_proc WHERE pronamespace = to_regnamespace('genesis')
    UNION ALL
    SELECT 'view', viewname, md5(definition), viewowner, NULL FROM pg_views WHERE schemaname = 'genesis'
    UNION ALL
    SELECT 'schema', nspname, pg_get_userbyid(nspowner), nspacl::text, obj_description(oid)
    FROM pg_namespace WHERE nspname !~ '^pg_(toast|temp)'
    UNION ALL
    SELECT 'trigger', tgrelid::regclass::text, tgname, NULL, NULL FROM pg_trigger WHERE NOT tgisinternal
    ORDER BY 1, 2, 3
"""


@pytest.fixture
def open_as():
    """Open sessions as the product does, and close them after the test."""
    opened = []

    def opening(dsn, **options):
        opened.append(connect(ConnectionSettings.from_dsn(dsn), **options))
        return opened[-1]

    yield opening
    for connection in opened:
        connection.close()


def fingerprint(dsn):
    with psycopg.connect(dsn) as connection:
        return connection.execute(FINGERPRINT).fetchall()


def run_psql(psql, dsn, script, *arguments):
    return subprocess.run(
        [psql, "-X", "-d", dsn, *arguments, "-f", SQL / script],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_owner_of_the_database_can_make_it(owner, open_as):
    report = install_schema(open_as(owner))
    assert (report.version_before, report.version_after) == (0, LATEST_VERSION)
    assert report.applied == tuple(UPGRADES.values())
    assert any("pg_monitor" in lost for lost in report.lost)
    require_schema(open_as(owner))


def test_a_superuser_loses_nothing_but_what_the_server_lacks(database, open_as):
    connection = open_as(database)
    assert not any("pg_monitor" in lost for lost in install_schema(connection).lost)


def test_making_it_twice_changes_nothing(owner, open_as):
    connection = open_as(owner)
    install_schema(connection)
    before = fingerprint(owner)
    report = install_schema(connection)
    assert (report.version_before, report.applied) == (LATEST_VERSION, ())
    assert fingerprint(owner) == before


def test_psql_and_python_make_the_same(owner, open_as, psql):
    done = run_psql(psql, owner, "setup_db.sql")
    assert done.returncode == 0, done.stderr
    assert f"version {LATEST_VERSION}" in done.stderr
    assert "GRANT pg_monitor" in done.stderr
    by_psql = fingerprint(owner)
    uninstall_schema(open_as(owner))
    install_schema(open_as(owner))
    assert fingerprint(owner) == by_psql


def test_psql_may_run_it_twice_from_any_folder(owner, psql, tmp_path):
    for _ in range(2):
        done = subprocess.run(
            [psql, "-X", "-q", "-d", owner, "-f", SQL / "setup_db.sql"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
            timeout=60,
        )
        assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_setup_db_runs_every_file_that_python_runs():
    script = (SQL / "setup_db.sql").read_text()
    included = re.findall(r"\\ir schema/(\S+)\.sql", script)
    numbered = in_order(path.name for path in (SQL / "schema" / "repeatable").glob("*.sql"))
    repeatable = [f"repeatable/{stem}" for stem in numbered]
    assert included == ["guard", *UPGRADES.values(), *repeatable, "finish"]
    assert f"'genesis.known_version', '{LATEST_VERSION}'" in script
    assert list(UPGRADES) == list(range(1, LATEST_VERSION + 1))
    asked = re.findall(r"\\if :(genesis_lacks_\d+)\n    \\ir schema/0*(\d+)_", script)
    assert asked == [(f"genesis_lacks_{number}", str(number)) for number in UPGRADES]
    assert all(f":genesis_version < {number} AS genesis_lacks_{number}" in script for number in UPGRADES)


def test_the_tenth_file_comes_after_the_ninth():
    names = ["10_tenth.sql", "2_second.sql", "README", "9_ninth.sql", "1_first.sql", "guard.sql"]
    assert in_order(names) == ("guard", "1_first", "2_second", "9_ninth", "10_tenth")


@pytest.mark.parametrize("version", list(UPGRADES)[:-1])
def test_every_older_version_is_upgraded(owner, open_as, version):
    with psycopg.connect(owner) as connection:
        for older in range(1, version + 1):
            connection.execute(read_query(f"schema/{UPGRADES[older]}"), prepare=False)
    with pytest.raises(TargetError, match="genesis-pg setup"):
        require_schema(open_as(owner))
    report = install_schema(open_as(owner))
    assert (report.version_before, report.version_after) == (version, LATEST_VERSION)
    upgraded = fingerprint(owner)
    uninstall_schema(open_as(owner))
    install_schema(open_as(owner))
    assert fingerprint(owner) == upgraded


@pytest.mark.parametrize(
    "theirs",
    [
        "CREATE SCHEMA genesis",
        "CREATE SCHEMA genesis; CREATE TABLE genesis.schema_version (version integer); "
        "INSERT INTO genesis.schema_version VALUES (1)",
        "CREATE SCHEMA genesis; COMMENT ON SCHEMA genesis IS 'the first book'",
    ],
)
def test_a_schema_that_is_not_ours_is_not_touched(database, open_as, psql, theirs):
    with psycopg.connect(database) as connection:
        connection.execute(theirs)
    before = fingerprint(database)
    for doing in (install_schema, uninstall_schema, schema_state):
        with pytest.raises(SchemaForeign, match="was not made by"):
            doing(open_as(database))
    for script in ("setup_db.sql", "uninstall_db.sql"):
        done = run_psql(psql, database, script)
        assert done.returncode == 3
        assert "was not made by genesis-pg" in done.stderr
        assert "HINT" in done.stderr
    assert fingerprint(database) == before


def test_a_schema_of_a_role_that_we_are_no_member_of_is_refused(database, owner, open_as):
    install_schema(open_as(database))
    before = fingerprint(database)
    with pytest.raises(SchemaForeign, match="belongs to role"):
        install_schema(open_as(owner))
    with pytest.raises(SchemaForeign, match="belongs to role"):
        uninstall_schema(open_as(owner))
    with pytest.raises(PrivilegeMissing):
        schema_state(open_as(owner))
    assert fingerprint(database) == before


def test_a_superuser_does_not_run_what_the_owner_has_made_of_the_schema(database, owner, open_as):
    install_schema(open_as(owner))
    with psycopg.connect(owner) as connection:
        connection.execute("""
            CREATE FUNCTION genesis.planted() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                RESET ROLE;
                EXECUTE format('ALTER ROLE %I SUPERUSER', TG_ARGV[0]);
                RETURN NEW;
            END $$
        """)
        connection.execute(
            "DELETE FROM genesis.schema_version WHERE version = (SELECT max(version) FROM genesis.schema_version)"
        )
        connection.execute("DROP TABLE genesis.forests CASCADE; DROP TYPE genesis.error_calibration CASCADE")
        connection.execute(
            "DROP FUNCTION genesis.is_forest(integer, integer, integer[], integer[], double precision[], integer[], "
            "integer[], boolean[], integer[], double precision[])"
        )
        connection.execute(
            "CREATE TRIGGER planted BEFORE INSERT ON genesis.schema_version "
            f"FOR EACH ROW EXECUTE FUNCTION genesis.planted('{connection.info.user}')"
        )
    try:
        for look in (install_schema, schema_state):
            with pytest.raises(SchemaForeign, match="must not run for a superuser"):
                look(open_as(database))
        with pytest.raises(psycopg.Error, match="must not run for a superuser") as refused:
            open_as(database).execute(setup_script(LATEST_VERSION - 1))
        assert refused.value.sqlstate == "GE001"
    finally:
        with psycopg.connect(owner) as connection:
            found = connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()
    assert found == (False,)


def test_a_schema_that_was_marked_for_us_is_used(owner, open_as):
    with psycopg.connect(owner) as connection:
        connection.execute("CREATE SCHEMA genesis; COMMENT ON SCHEMA genesis IS 'genesis-pg'")
    assert install_schema(open_as(owner)).version_after == LATEST_VERSION


def test_a_newer_schema_is_refused(owner, open_as, psql):
    install_schema(open_as(owner))
    with psycopg.connect(owner) as connection:
        connection.execute("INSERT INTO genesis.schema_version (version, name) VALUES (999, 'of the future')")
    before = fingerprint(owner)
    with pytest.raises(SchemaNewer, match="999"):
        install_schema(open_as(owner))
    with pytest.raises(SchemaNewer, match="999"):
        require_schema(open_as(owner))
    assert "version 999" in run_psql(psql, owner, "setup_db.sql").stderr
    assert fingerprint(owner) == before
    uninstall_schema(open_as(owner))
    assert schema_state(open_as(owner)).version == 0


def test_a_members_upgrade_leaves_the_owner_its_schema(database, owner, open_as):
    install_schema(open_as(owner))
    before = fingerprint(owner)
    role = sql.Identifier(conninfo_to_dict(owner)["user"])
    with psycopg.connect(database, autocommit=True) as superuser, psycopg.connect(owner) as connection:
        connection.execute("DROP FUNCTION genesis.maintain()")
        connection.commit()
        superuser.execute(sql.SQL("CREATE ROLE member_of_owner LOGIN IN ROLE {}").format(role))
        try:
            install_schema(open_as(make_conninfo(database, user="member_of_owner")))
        finally:
            superuser.execute("DROP ROLE member_of_owner")
    assert fingerprint(owner) == before


def test_what_goes_wrong_in_the_middle_leaves_nothing(owner, open_as, psql):
    with psycopg.connect(owner) as connection:
        connection.execute("CREATE SCHEMA genesis; COMMENT ON SCHEMA genesis IS 'genesis-pg'")
        connection.execute("CREATE TABLE genesis.trials (mine integer)")
    before = fingerprint(owner)
    with pytest.raises(TargetError, match="trials"):
        install_schema(open_as(owner))
    assert run_psql(psql, owner, "setup_db.sql").returncode == 3
    assert fingerprint(owner) == before


def test_two_setups_at_once_both_succeed(owner, open_as):
    connections = [open_as(owner) for _ in range(3)]
    reports = []
    threads = [
        threading.Thread(target=lambda connection=connection: reports.append(install_schema(connection)))
        for connection in connections
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(report.version_before for report in reports) == [0, LATEST_VERSION, LATEST_VERSION]


def test_a_role_that_may_not_create_is_told(database, server, open_as):
    name = f"guest_of_{conninfo_to_dict(database)['dbname']}"
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN")
        try:
            with pytest.raises(PrivilegeMissing, match="permission denied for database"):
                install_schema(open_as(make_conninfo(database, user=name)))
        finally:
            connection.execute(f"DROP ROLE {name}")


def test_a_read_only_session_is_told(database, owner, open_as):
    role = conninfo_to_dict(owner)["user"]
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"ALTER ROLE {role} SET default_transaction_read_only = on")
    with pytest.raises(ReadOnlyServer):
        install_schema(open_as(owner))


def test_uninstall_leaves_no_trace(database, owner, open_as):
    with psycopg.connect(owner) as connection:
        connection.execute("CREATE SCHEMA shop; CREATE TABLE shop.orders (id integer)")
    with psycopg.connect(database) as connection:
        connection.execute("CREATE SCHEMA vault; CREATE TABLE vault.of_the_superuser (id integer)")
    before = fingerprint(database)
    install_schema(open_as(owner))
    for dsn, table in ((owner, "shop.orders"), (database, "vault.of_the_superuser")):
        with psycopg.connect(dsn) as connection:
            connection.execute("SELECT genesis.watch_table(%s::text::regclass)", [table])
    assert fingerprint(database) != before
    uninstall_schema(open_as(owner))
    assert fingerprint(database) == before
    uninstall_schema(open_as(owner))  # nothing to do is no error
    with psycopg.connect(owner) as connection:
        connection.execute("INSERT INTO shop.orders VALUES (1)")


def test_psql_uninstalls_too(owner, open_as, psql):
    before = fingerprint(owner)
    install_schema(open_as(owner))
    done = run_psql(psql, owner, "uninstall_db.sql")
    assert done.returncode == 0, done.stderr
    assert fingerprint(owner) == before


def test_a_hostile_search_path_changes_nothing(owner, open_as):
    """Operators and functions of the user's schemas must not be taken for PostgreSQL's."""
    with psycopg.connect(owner) as connection:
        connection.execute("""
            CREATE SCHEMA evil;
            CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE plpgsql AS $$BEGIN RAISE 'evil'; END$$;
            CREATE FUNCTION evil.count() RETURNS bigint LANGUAGE plpgsql AS $$BEGIN RAISE 'evil'; END$$;
            CREATE FUNCTION evil.eq(text, text) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE 'evil'; END$$;
            CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.eq);
            CREATE TABLE evil.t (id integer);
        """)
    install_schema(open_as(owner))
    with psycopg.connect(owner, options="-c search_path=evil,pg_catalog", autocommit=True) as connection:
        connection.execute("SELECT genesis.record_window()")
        connection.execute("SELECT genesis.watch_table('evil.t')")
        connection.execute("INSERT INTO t VALUES (1)")
        assert connection.execute("SELECT pg_catalog.count(*) FROM genesis.operations").fetchone() == (1,)
        assert connection.execute("SELECT pg_catalog.max(windows) FROM genesis.metrics_by_dimension").fetchone()
