"""A database that publishes all its tables: whoever subscribes must not be stopped by tables of ours."""

import subprocess
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from ml_postgres_optimization.errors import UsageError
from ml_postgres_optimization.target.postgres import schema
from ml_postgres_optimization.target.postgres.connection import ConnectionSettings, connect
from ml_postgres_optimization.target.postgres.schema import install_schema, uninstall_schema
from ml_postgres_optimization.target.postgres.simulation import SimulationPlan, simulate_load
from ml_postgres_optimization.workload import create_tables, renew_tables, tables_scale
from ml_postgres_optimization.workload.accounting import Ledger

SCHEMAS = "SELECT string_agg(nspname, ',') FROM pg_namespace WHERE nspname LIKE 'genesis%'"
TABLES = """
    SELECT relname FROM pg_class
    WHERE relnamespace = 'genesis'::regnamespace AND relkind IN ('r', 'p') AND relname NOT LIKE 'operations%'
"""


@pytest.fixture
def published(database):
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    return database


@pytest.fixture
def session(database):
    with connect(ConnectionSettings.from_dsn(database), statement_timeout_seconds=0) as connection:
        yield connection


def test_no_table_of_ours_is_made_where_all_are_published(published, session):
    with pytest.raises(UsageError, match=r"publishes all its tables \(everything\)") as refused:
        install_schema(session)
    assert "--repository" in refused.value.next_step
    with pytest.raises(UsageError, match=r"publishes all its tables \(everything\)"):
        create_tables(published, 0.005)
    assert session.execute(SCHEMAS).fetchone() == (None,)
    assert uninstall_schema(session) == ()


def test_psql_is_refused_likewise(published, psql):
    script = Path(schema.__file__).parent / "sql" / "setup_db.sql"
    command = [psql, "-X", "-d", published, "-f", script]
    refused = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert refused.returncode != 0
    assert "publishes all its tables (everything)" in refused.stderr


def test_the_administrator_s_roles_are_no_way_around_it(published, session):
    session.execute("CREATE SCHEMA genesis; COMMENT ON SCHEMA genesis IS 'genesis-pg'")
    with pytest.raises(UsageError, match="publishes all its tables"):
        install_schema(session)


def test_what_was_there_before_the_publication_goes_on(database, session):
    install_schema(session)
    session.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    assert install_schema(session).applied == ()
    tables = [name for (name,) in session.execute(TABLES).fetchall()]
    assert {"predictions", "predictions_default", "configuration_history", "trials", "metric_windows"} < set(tables)
    for name in tables:
        for statement in ("DELETE FROM genesis.{} WHERE false", "UPDATE genesis.{0} SET {1} = {1} WHERE false"):
            column = session.execute(
                "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped "
                "AND attidentity = '' AND attgenerated = '' LIMIT 1",
                (f"genesis.{name}",),
            ).fetchone()
            identifiers = map(sql.Identifier, (name, column[0]) if "{1}" in statement else (name,))
            session.execute(sql.SQL(statement).format(*identifiers))
    session.execute("SELECT genesis.add_partition('predictions', 'made_at', '2011-12-30')")
    session.execute("DELETE FROM genesis.predictions_p20111230")
    with pytest.raises(UsageError, match="publishes all its tables"):
        simulate_load(session, SimulationPlan(rows=10, operations=1, windows=1))


def test_tables_of_the_load_that_are_published_stay_and_are_not_filled_anew(database, session):
    create_tables(database, 0.005)
    session.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    create_tables(database, 0.005)
    for again in (create_tables, renew_tables):
        with pytest.raises(UsageError, match="publishes all its tables"):
            again(database, 0.01)
    with pytest.raises(UsageError, match="publishes all its tables"), Ledger(database, "run") as ledger:
        ledger.take(0, is_new=True)
    assert tables_scale(database) == 0.005
