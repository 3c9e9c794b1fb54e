"""Taking schema genesis away: what is the user's stays, and nobody is held up for long."""

import subprocess
from pathlib import Path

import psycopg
import pytest
from command_line import CommandLine, by_hand, clean_environment, rows

from ml_postgres_optimization.errors import SchemaForeign, TargetError
from ml_postgres_optimization.target.postgres import schema
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings, connect
from ml_postgres_optimization.target.postgres.schema import (
    install_schema,
    marked_schemas,
    schema_state,
    uninstall_schema,
)
from ml_postgres_optimization.target.postgres.simulation import SimulationPlan, simulate_load
from ml_postgres_optimization.telemetry import VirtualClock
from ml_postgres_optimization.workload import create_tables

UNINSTALL_SQL = Path(schema.__file__).parent / "sql" / "uninstall_db.sql"
PLAN = SimulationPlan(rows=10, operations=20, minutes=60, windows=1)
OBJECTS = "SELECT oid, relname, relnamespace::regnamespace::text, relowner FROM pg_class ORDER BY 1"
SIMULATION_OWNER = "SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'genesis_simulation'"


@pytest.fixture
def session(owner):
    """The session of the database's owner, who ran setup."""
    with connect(ConnectionSettings.from_dsn(owner), statement_timeout_seconds=60) as connection:
        install_schema(connection)
        connection.execute("CREATE SCHEMA shop; CREATE TABLE shop.orders (id integer PRIMARY KEY)", prepare=False)
        yield connection


@pytest.fixture
def superuser(database):
    with connect(ConnectionSettings.from_dsn(database), statement_timeout_seconds=60) as connection:
        yield connection


@pytest.fixture
def here(monkeypatch, capsys, tmp_path, database):
    """The command line on a fresh database."""
    clean_environment(monkeypatch, tmp_path / "home")
    return CommandLine(capsys, tmp_path / "home", database)


def run_psql(psql, dsn):
    command = [psql, "-X", "-d", dsn, "-f", UNINSTALL_SQL]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_a_simulation_goes_with_the_owners_schema_and_a_superuser_runs_none_in_it(session, superuser):
    with pytest.raises(SchemaForeign, match="must not run for a superuser"):
        simulate_load(superuser, PLAN)
    simulate_load(session, PLAN)
    assert session.execute(SIMULATION_OWNER).fetchone() == session.execute("SELECT session_user::text").fetchone()
    assert uninstall_schema(session) == ("genesis", "genesis_simulation")
    assert marked_schemas(session) == ()


def test_a_simulation_that_belongs_to_somebody_else_is_dropped_by_who_may(session, superuser, psql, database):
    superuser.execute(
        "CREATE SCHEMA genesis_simulation; COMMENT ON SCHEMA genesis_simulation IS 'genesis-pg'", prepare=False
    )
    before = superuser.execute(OBJECTS).fetchall()
    with pytest.raises(SchemaForeign, match=r"genesis_simulation of database .* belongs to role"):
        uninstall_schema(session)
    assert superuser.execute(OBJECTS).fetchall() == before
    role = superuser.execute("SELECT current_user").fetchone()
    done = run_psql(psql, database)
    assert done.returncode == 0, done.stderr
    assert marked_schemas(superuser) == ()
    assert superuser.execute("SELECT current_user").fetchone() == role


DEPENDENTS = {
    "view shop.mine": "CREATE VIEW shop.mine AS SELECT * FROM genesis.recent_metrics",
    "materialized view shop.mine": "CREATE MATERIALIZED VIEW shop.mine AS SELECT * FROM genesis.trials",
    "column response of table shop.mine": "CREATE TABLE shop.mine AS SELECT response FROM genesis.operation_windows",
    "table shop.mine": "CREATE TABLE shop.mine () INHERITS (genesis.operations)",
    "table shop.journal": "ALTER TABLE genesis.metric_windows_default SET SCHEMA shop; "
    "ALTER TABLE shop.metric_windows_default RENAME TO journal",
    "constraint": "CREATE TABLE shop.mine (id text REFERENCES genesis.configurations)",
    "default value for column id of table shop.mine": "CREATE TABLE shop.mine "
    "(id bigint DEFAULT nextval('genesis.window_ids'))",
    "function shop.mine(genesis.histogram)": "CREATE FUNCTION shop.mine(genesis.histogram) RETURNS integer "
    "LANGUAGE sql AS 'SELECT 1'",
    "function shop.mine()": "CREATE FUNCTION shop.mine() RETURNS bigint BEGIN ATOMIC "
    "SELECT count(*) FROM genesis.journal; END",
    "type shop.mine": "CREATE DOMAIN shop.mine AS genesis.histogram",
    "rule mine on table shop.orders": "CREATE RULE mine AS ON DELETE TO shop.orders DO ALSO "
    "INSERT INTO genesis.statement_texts VALUES (1, 'x')",
    "policy mine on table shop.orders": "CREATE POLICY mine ON shop.orders "
    "USING (id IN (SELECT version FROM genesis.schema_version))",
    "trigger mine on table shop.orders": "CREATE TRIGGER mine BEFORE INSERT ON shop.orders FOR EACH ROW "
    "WHEN (genesis.bucket_of(NEW.id) > 5) EXECUTE FUNCTION suppress_redundant_updates_trigger()",
}


@pytest.mark.parametrize("described", DEPENDENTS)
def test_what_others_made_of_our_objects_is_named_and_stays(session, described):
    session.execute(DEPENDENTS[described], prepare=False)
    session.execute("SELECT genesis.watch_table('shop.orders')")
    before = session.execute(OBJECTS).fetchall()
    with pytest.raises(TargetError) as refused:
        uninstall_schema(session)
    assert described in refused.value.what
    assert refused.value.exit_code == 3
    assert refused.value.next_step == "Nothing was touched. Drop or change them first."
    assert session.execute(OBJECTS).fetchall() == before


def test_many_dependents_are_counted(session, psql, owner):
    for number in range(12):
        session.execute(f"CREATE VIEW shop.view_{number} AS SELECT * FROM genesis.trials")
    done = run_psql(psql, owner)
    assert done.returncode == 3
    assert done.stderr.count("view shop.view_") == 10
    assert "and 2 more" in done.stderr
    session.execute("DROP SCHEMA shop CASCADE")
    assert run_psql(psql, owner).returncode == 0


def test_what_needs_the_simulations_tables_stays_too(session):
    simulate_load(session, PLAN)
    session.execute("CREATE VIEW shop.rich AS SELECT * FROM genesis_simulation.accounts WHERE balance > 0")
    with pytest.raises(TargetError, match=r"dropped: view shop\.rich"):
        uninstall_schema(session)
    session.execute("DROP VIEW shop.rich")
    uninstall_schema(session)


class Patience(VirtualClock):
    """A clock that counts the pauses, and ends what was in the way in the second one."""

    def __init__(self, other):
        super().__init__()
        self.pauses = 0
        self.other = other

    def sleep(self, seconds):
        super().sleep(seconds)
        self.pauses += 1
        if self.pauses == 2 and self.other is not None:
            self.other.rollback()


def test_a_busy_table_is_not_held_up_but_tried_again(session, owner):
    session.execute("SELECT genesis.watch_table('shop.orders')")
    with psycopg.connect(owner) as other:
        other.execute("INSERT INTO shop.orders VALUES (1)")
        clock = Patience(other)
        uninstall_schema(session, clock=clock)
    assert clock.pauses == 2
    assert schema_state(session).version == 0


def test_a_table_that_stays_busy_is_left_in_peace(session, owner):
    session.execute("SELECT genesis.watch_table('shop.orders')")
    with psycopg.connect(owner) as other:
        other.execute("INSERT INTO shop.orders VALUES (1)")
        clock = Patience(None)
        with pytest.raises(TargetError, match="is in use") as refused:
            uninstall_schema(session, clock=clock)
        assert "quieter" in refused.value.next_step
        assert 1 < clock.pauses < 10
        other.execute("INSERT INTO shop.orders VALUES (2)")
    assert session.execute("SELECT count(*) FROM genesis.operations").fetchone() == (2,)


def test_the_command_names_what_is_there(here, database):
    assert here("uninstall", "--dry-run").done().out == "Would drop nothing: there is nothing of ours.\n"
    with connect(ConnectionSettings.from_dsn(database), statement_timeout_seconds=60) as superuser:
        install_schema(superuser)
        assert here("uninstall", "--dry-run", "--json").done().document == {
            "would_drop": ["schema genesis and our triggers"]
        }
        simulate_load(superuser, PLAN)
    both = ["schema genesis and our triggers", "schema genesis_simulation"]
    assert here("uninstall", "--dry-run", "--json").done().document == {"would_drop": both}
    assert here("uninstall", "--json").done().document["dropped"] == both
    assert rows(database, "SELECT nspname FROM pg_namespace WHERE nspname ~ 'genesis'") == []
    assert "nothing: there was nothing of ours" in here("uninstall").done().out


def test_the_command_ends_with_two_lines_where_others_need_our_objects(here, database):
    here("setup").done()
    with psycopg.connect(database) as superuser:
        superuser.execute('CREATE VIEW public."mi\nne" AS SELECT * FROM genesis.trials')
    here("uninstall").is_refused(3, 'view public."mi?ne"', "Drop or change them first")
    here("status").done()


def test_a_dry_run_refuses_what_the_command_refuses(here, database):
    by_hand(database, "CREATE SCHEMA genesis")
    for command in ("setup", "uninstall"):
        here(command, "--dry-run").is_refused(3, "genesis")


def test_a_dry_run_of_setup_shows_what_is_still_to_do_as_one_transaction(here, database):
    whole = here("setup", "--dry-run", "--json").done().document["sql"]
    by_hand(database, whole)
    assert here("doctor", "--json").document["checks"][-1]["found"] == "version 12"
    rest = here("setup", "--dry-run", "--json").done().document["sql"]
    assert "CREATE TABLE genesis.trials" in whole and "CREATE TABLE genesis.trials" not in rest
    assert rest.startswith("BEGIN;") and rest.endswith("COMMIT;")


def test_what_is_gone_already_is_said_when_the_rest_cannot_be_dropped(here, database):
    here("setup").done()
    create_tables(database, 0.01)
    by_hand(database, "CREATE VIEW mine AS SELECT * FROM genesis.recent_metrics")
    here("uninstall").is_refused(3, "mine", "genesis_load is dropped already")
    by_hand(database, "DROP VIEW mine")
    assert "Promoted settings" not in here("uninstall").done().out
